// Talks to iproto servers with go-iproto, and ends with status 1 when something is not as it should
// be:
//
//	client check ECHO_ADDRESS MUX_ADDRESS   everything against the examples iproto_echo and iproto_mux
//	client short ADDRESS COUNT              the same short conversation on COUNT connections
//	client wait ADDRESS                     asks once, and waits for the server to shut down
//	client scene NAME ADDRESS               one of the scenes that are recorded
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/Educentr/go-iproto/iproto"
)

const (
	echo     = 42
	askBack  = 7
	asked    = 8
	shutDown = 10
	patience = 30 * time.Second
)

var background = context.Background()

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}
func (quiet) Debugf(context.Context, string, ...any) {}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func want(is bool, text string, values ...any) {
	if !is {
		must(fmt.Errorf(text, values...))
	}
}

func dial(address string, config iproto.ChannelConfig) *iproto.Channel {
	conn, err := net.DialTimeout("tcp", address, patience)
	must(err)
	config.Logger = quiet{}
	config.RequestTimeout = patience
	config.ShutdownTimeout = patience
	channel, err := iproto.RunChannel(conn, &config)
	must(err)
	return channel
}

func call(channel *iproto.Channel, msg uint32, body []byte) []byte {
	answer, err := channel.Call(background, msg, body)
	must(err)
	return answer
}

// Ends a connection in order: the peer has to answer, or this takes ShutdownTimeout.
func shutdown(channel *iproto.Channel) {
	begun := time.Now()
	channel.Shutdown()
	<-channel.Done()
	must(channel.Error())
	want(time.Since(begun) < patience/2, "the shutdown was not answered")
}

func pattern(length int) []byte {
	body := make([]byte, length)
	for at := range body {
		body[at] = byte(at*7 + length)
	}
	return body
}

func bodies(channel *iproto.Channel, lengths ...int) {
	for _, length := range lengths {
		body := pattern(length)
		want(bytes.Equal(call(channel, echo, body), body), "a body of %d bytes came back as another one", length)
	}
}

func inFlight(channel *iproto.Channel, callers, calls int) {
	var all sync.WaitGroup
	for caller := range callers {
		all.Add(1)
		go func() {
			defer all.Done()
			for number := range calls {
				body := fmt.Appendf(nil, "caller %d, number %d", caller, number)
				want(bytes.Equal(call(channel, uint32(number), body), body), "another answer than %q", body)
			}
		}()
	}
	all.Wait()
}

func pings(address string) {
	const interval = 250 * time.Millisecond
	channel := dial(address, iproto.ChannelConfig{PingInterval: interval})
	// A ping that is not answered for two intervals ends the connection.
	time.Sleep(4 * interval)
	stats := channel.Stats()
	want(!channel.Closed(), "pings ended the connection: %v", channel.Error())
	want(stats.PacketsReceived >= 2, "%d answers to %d pings", stats.PacketsReceived, stats.PacketsSent)
	shutdown(channel)
}

type value struct {
	Key  uint32
	Text string
}

func ask(channel *iproto.Channel, msg uint32, request any) (code uint32, text string) {
	body, err := iproto.Pack(request)
	must(err)
	_, err = iproto.Unpack(call(channel, msg, body), &code, &text)
	must(err)
	return code, text
}

// Packed requests to iproto_mux: 1 gets, 2 sets, 3 (a notify) deletes.
func store(channel *iproto.Channel) {
	code, _ := ask(channel, 1, uint32(7))
	want(code == 1, "a key that is not there answers %d", code)
	code, _ = ask(channel, 2, value{7, "seven"})
	want(code == 0, "a value cannot be set: %d", code)
	code, text := ask(channel, 1, uint32(7))
	want(code == 0 && text == "seven", "the value is %d %q", code, text)
	body, err := iproto.Pack(uint32(7))
	must(err)
	must(channel.Notify(background, 3, body))
	code, _ = ask(channel, 1, uint32(7))
	want(code == 1, "a value that a notify deleted answers %d", code)
	code, _ = ask(channel, 99, uint32(7))
	want(code == 3, "an unknown code answers %d", code)
}

func check(echoAddress, muxAddress string) {
	channel := dial(echoAddress, iproto.ChannelConfig{})
	bodies(channel, 0, 1, 11, 12, 13, 2048, 2049, 65_536, 1<<20, 10<<20)
	fmt.Println("good: bodies from 0 bytes to 10 MiB")
	inFlight(channel, 500, 40)
	fmt.Println("good: 20000 calls, 500 in flight")
	call(channel, 0xff02, []byte("reserved"))
	fmt.Println("good: a reserved code reaches the handler")
	shutdown(channel)
	fmt.Println("good: a shutdown is answered")
	pings(echoAddress)
	fmt.Println("good: pings are answered")
	pool, err := iproto.Dial(background, "tcp", echoAddress, &iproto.PoolConfig{
		Size: 4, ConnectTimeout: patience, Logger: quiet{}, ChannelConfig: &iproto.ChannelConfig{Logger: quiet{}},
	})
	must(err)
	for number := range 400 {
		body := pattern(number)
		answer, err := pool.Call(background, echo, body)
		must(err)
		want(bytes.Equal(answer, body), "the pool got another answer")
	}
	pool.Shutdown()
	fmt.Println("good: a pool of 4 connections")
	mux := dial(muxAddress, iproto.ChannelConfig{})
	store(mux)
	shutdown(mux)
	fmt.Println("good: packed requests, replies and a notify")
}

// What a proxy cuts at every byte.
func short(address string, count int) {
	for range count {
		channel := dial(address, iproto.ChannelConfig{})
		bodies(channel, 0, 5)
		must(channel.Notify(background, 3, []byte("told")))
		bodies(channel, 20)
		shutdown(channel)
	}
}

func wait(address string) {
	channel := dial(address, iproto.ChannelConfig{})
	told := make(chan struct{})
	channel.OnShutdown(func() { close(told) })
	bodies(channel, 5)
	fmt.Println("ready")
	select {
	case <-channel.Done():
	case <-time.After(patience):
		must(errors.New("the server did not shut down"))
	}
	<-told
	must(channel.Error())
}

// Answers what a server asks.
func serve(ctx context.Context, conn iproto.Conn, packet iproto.Packet) {
	if packet.Header.Msg == asked {
		_ = conn.Send(ctx, iproto.ResponseTo(packet, append([]byte("you said "), packet.Data...)))
	}
}

func scene(name, address string) {
	switch name {
	case "calls":
		channel := dial(address, iproto.ChannelConfig{})
		bodies(channel, 0, 1, 11, 12, 13, 300)
		call(channel, 0xff02, []byte("reserved"))
		shutdown(channel)
	case "in_flight":
		channel := dial(address, iproto.ChannelConfig{})
		inFlight(channel, 16, 4)
		shutdown(channel)
	case "notifies":
		channel := dial(address, iproto.ChannelConfig{})
		for number := range 3 {
			must(channel.Notify(background, uint32(number), pattern(number)))
		}
		bodies(channel, 2)
		shutdown(channel)
	case "pings":
		channel := dial(address, iproto.ChannelConfig{PingInterval: 50 * time.Millisecond})
		bodies(channel, 3)
		for channel.Stats().PacketsReceived < 3 {
			time.Sleep(time.Millisecond)
		}
		shutdown(channel)
	case "asked_back":
		channel := dial(address, iproto.ChannelConfig{Handler: iproto.HandlerFunc(serve)})
		want(string(call(channel, askBack, []byte("hello"))) == "you said hello", "another answer")
		shutdown(channel)
	case "server_shuts_down":
		channel := dial(address, iproto.ChannelConfig{})
		call(channel, shutDown, []byte("go"))
		<-channel.Done()
		must(channel.Error())
	default:
		must(fmt.Errorf("there is no scene %q", name))
	}
}

func main() {
	arguments := os.Args[1:]
	mode := ""
	if len(arguments) > 0 {
		mode = arguments[0]
	}
	switch {
	case mode == "check" && len(arguments) == 3:
		check(arguments[1], arguments[2])
	case mode == "short" && len(arguments) == 3:
		count, err := strconv.Atoi(arguments[2])
		must(err)
		short(arguments[1], count)
	case mode == "wait" && len(arguments) == 2:
		wait(arguments[1])
	case mode == "scene" && len(arguments) == 3:
		scene(arguments[1], arguments[2])
	default:
		fmt.Fprintln(os.Stderr, "usage: client check ECHO MUX | short ADDRESS COUNT | wait ADDRESS | scene NAME ADDRESS")
		os.Exit(2)
	}
}
