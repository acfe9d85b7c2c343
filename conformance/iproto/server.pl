#!/usr/bin/perl
# An echo server of MR::IProto, which hands pings and shutdowns to its handler as any request, and
# answers what has sync 0: server.pl. Says where it listens; ends on SIGTERM.
use strict;
use warnings;
use AnyEvent;
use AnyEvent::DNS;
use IO::Socket::INET;
use MR::IProto::Server;

my $PING = 0xff00;

# It looks up the name of every peer before it reads: nobody answers that here.
{
    no warnings qw(redefine prototype);
    *AnyEvent::DNS::reverse_verify = sub { $_[1]->() };
}

# It does not tell which port it was given, so that one is looked for.
my $free = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', ReuseAddr => 1)
    or die "no port: $!\n";
my $port = $free->sockport;
close $free;

my $server = MR::IProto::Server->new(
    host     => '127.0.0.1',
    port     => $port,
    # It passes these on to its connections, which insist on them.
    (map { $_ => sub { } } qw(on_accept on_close on_error debug_cb)),
    # A ping may be answered with a body.
    handler => sub { my (undef, $msg, $body) = @_; return $msg == $PING ? "here$body" : $body },
);
$server->run;
print STDERR "listening on 127.0.0.1:$port\n";

my $end = AnyEvent->condvar;
my $guard = AnyEvent->signal(signal => 'TERM', cb => sub { $end->send });
$end->recv;
