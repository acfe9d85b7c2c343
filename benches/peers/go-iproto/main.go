// An echo server and a client on go-iproto:
//
//	peer serve ADDRESS
//	peer call ADDRESS SERVER_PID IN_FLIGHT BYTES WARM_UP_MS MEASURE_MS
//
// The client calls from IN_FLIGHT goroutines on one connection, compares every answer, and prints how
// many calls there were while it was measured, how many nanoseconds that took, and how many of
// processor time this process and the server needed.
package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/Educentr/go-iproto/iproto"
)

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}
func (quiet) Debugf(context.Context, string, ...any) {}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func serve(address string) {
	listener, err := net.Listen("tcp", address)
	must(err)
	echo := func(ctx context.Context, conn iproto.Conn, packet iproto.Packet) {
		_ = conn.Send(ctx, iproto.ResponseTo(packet, packet.Data))
	}
	config := &iproto.ChannelConfig{Handler: iproto.HandlerFunc(echo), Logger: quiet{}}
	server := &iproto.Server{Log: quiet{}, ChannelConfig: config}
	must(server.Serve(context.Background(), listener))
}

// The processor time of all threads of a process, in nanoseconds.
func cpuTime(process int) (sum int64) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", process))
	must(err)
	for _, thread := range threads {
		// A thread that ended meanwhile has no file any more.
		if text, err := os.ReadFile(thread); err == nil {
			var spent int64
			_, err := fmt.Sscan(string(text), &spent)
			must(err)
			sum += spent
		}
	}
	return sum
}

func call(address string, server, inFlight, size, warmUp, measure int) {
	conn, err := net.Dial("tcp", address)
	must(err)
	channel, err := iproto.RunChannel(conn, &iproto.ChannelConfig{Logger: quiet{}})
	must(err)
	var calls atomic.Uint64
	for caller := range inFlight {
		body := make([]byte, size)
		for at := range body {
			body[at] = byte(at + caller)
		}
		go func() {
			for {
				answer, err := channel.Call(context.Background(), 42, body)
				must(err)
				if !bytes.Equal(answer, body) {
					must(fmt.Errorf("another answer: %x", answer))
				}
				calls.Add(1)
			}
		}()
	}
	time.Sleep(time.Duration(warmUp) * time.Millisecond)
	own, servers := cpuTime(os.Getpid()), cpuTime(server)
	begun, before := time.Now(), calls.Load()
	time.Sleep(time.Duration(measure) * time.Millisecond)
	count, elapsed := calls.Load()-before, time.Since(begun)
	own, servers = cpuTime(os.Getpid())-own, cpuTime(server)-servers
	fmt.Println(count, elapsed.Nanoseconds(), own, servers)
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	must(err)
	return value
}

func main() {
	arguments := os.Args[1:]
	switch {
	case len(arguments) == 2 && arguments[0] == "serve":
		serve(arguments[1])
	case len(arguments) == 7 && arguments[0] == "call":
		numbers := [5]int{}
		for at := range numbers {
			numbers[at] = number(arguments[2+at])
		}
		call(arguments[1], numbers[0], numbers[1], numbers[2], numbers[3], numbers[4])
	default:
		fmt.Fprintln(os.Stderr, "usage: peer serve ADDRESS | call ADDRESS SERVER_PID IN_FLIGHT BYTES WARM_UP_MS MEASURE_MS")
		os.Exit(2)
	}
}
