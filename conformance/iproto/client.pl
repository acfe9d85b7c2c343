#!/usr/bin/perl
# Talks to the examples iproto_echo and iproto_mux with MR::IProto: client.pl ECHO_ADDRESS MUX_ADDRESS
# Dies when something is not as it should be.
use strict;
use warnings;
use AnyEvent;
use MR::IProto;

my ($echo_address, $mux_address) = @ARGV;
die "usage: client.pl ECHO_ADDRESS MUX_ADDRESS\n" unless defined $mux_address;
my $timeout = 30;

sub client { MR::IProto->new(servers => $_[0], timeout => $timeout) }

# One after the other, every size.
my $echo = client($echo_address);
for my $length (0, 1, 11, 12, 13, 2048, 2049, 65_536, 1 << 20) {
    my $body = join '', map { chr(($_ * 7 + $length) % 256) } 1 .. ($length > 4096 ? 4096 : $length);
    $body = substr($body x (1 + $length / 4096), 0, $length) if $length > 4096;
    my $reply = $echo->send({ msg => 42, data => $body, unpack => sub { $_[0] } });
    $reply = $reply->[0] // '' if ref $reply;
    die "a body of $length bytes came back as another one\n" unless $reply eq $body;
}
print "good: bodies from 0 bytes to 1 MiB\n";

# Many at once.
my @messages = map { { msg => 7, data => "number $_", unpack => sub { $_[0] } } } 1 .. 500;
my %seen;
for my $reply (@{ $echo->send_bulk(\@messages) }) {
    die "no reply: $reply->{error}\n" if $reply->{error};
    my $data = $reply->{data};
    $seen{ ref $data ? $data->[0] : $data }++;
}
die "not each reply came once\n" if grep { ($seen{"number $_"} // 0) != 1 } 1 .. 500;
print "good: 500 requests at once\n";

# Without waiting.
my $done = AnyEvent->condvar;
my $left = 500;
for my $number (1 .. $left) {
    $echo->send({ msg => 8, data => "async $number", unpack => sub { $_[0] } }, sub {
        my ($reply, $error) = @_;
        $reply = $reply->[0] if ref $reply;
        $done->croak($error) if $error;
        $done->croak("another reply: $reply") unless $reply eq "async $number";
        $done->send if --$left == 0;
        return;
    });
}
$done->recv;
print "good: 500 asynchronous requests\n";

# Packed: u32, strings with their length in front, return codes.
my $mux = client($mux_address);
my $ask = sub {
    my ($msg, $format, @values) = @_;
    my $reply = $mux->send({
        msg => $msg, pack => $format, data => \@values, unpack => sub { [unpack 'L<L</a', $_[0]] },
    });
    return ref $reply->[0] ? @{ $reply->[0] } : @$reply;
};
my ($code) = $ask->(1, 'L<', 7);
die "a key that is not there answers $code\n" unless $code == 1;
($code) = $ask->(2, 'L<L</a', 7, 'seven');
die "a value cannot be set: $code\n" unless $code == 0;
($code, my $value) = $ask->(1, 'L<', 7);
die "the value is $code $value\n" unless $code == 0 && $value eq 'seven';
($code) = $ask->(99, 'L<', 7);
die "an unknown code answers $code\n" unless $code == 3;
print "good: packed requests and replies\n";
