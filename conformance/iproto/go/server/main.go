// An iproto server on go-iproto: server ADDRESS. It answers a request with its own body, but
//
//	7: asks the client the same with code 8, and answers with what it says;
//	9: answers with the number of notifies on this connection, as a packed u32;
//	10: answers, and shuts the connection down.
//
// On SIGTERM it shuts all connections down.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/Educentr/go-iproto/iproto"
)

const (
	askBack  = 7
	asked    = 8
	count    = 9
	shutDown = 10
)

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}
func (quiet) Debugf(context.Context, string, ...any) {}

// One for each connection.
type handler struct {
	notifies atomic.Uint32
}

func (h *handler) ServeIProto(ctx context.Context, conn iproto.Conn, packet iproto.Packet) {
	if packet.Header.Sync == 0 {
		h.notifies.Add(1)
		return
	}
	answer := func(body []byte) {
		_ = conn.Send(ctx, iproto.ResponseTo(packet, body))
	}
	switch packet.Header.Msg {
	case askBack:
		// A handler that waits here would wait for its own reader.
		go func() {
			body, err := conn.Call(ctx, asked, packet.Data)
			if err != nil {
				body = []byte(err.Error())
			}
			answer(body)
		}()
	case count:
		answer(iproto.PackUint32(nil, h.notifies.Load(), iproto.ModeDefault))
	case shutDown:
		answer(packet.Data)
		go conn.Shutdown()
	default:
		answer(packet.Data)
	}
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: server ADDRESS")
		os.Exit(2)
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
	var (
		mutex    sync.Mutex
		channels = map[*iproto.Channel]struct{}{}
	)
	server := &iproto.Server{
		Log: quiet{},
		Accept: func(conn net.Conn, _ *iproto.ChannelConfig) (*iproto.Channel, error) {
			channel := iproto.NewChannel(conn, &iproto.ChannelConfig{Handler: &handler{}, Logger: quiet{}})
			mutex.Lock()
			channels[channel] = struct{}{}
			mutex.Unlock()
			channel.OnClose(func() {
				mutex.Lock()
				delete(channels, channel)
				mutex.Unlock()
			})
			return channel, nil
		},
	}
	go func() { _ = server.Serve(context.Background(), listener) }()
	fmt.Fprintln(os.Stderr, "listening on", listener.Addr())

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	<-stop
	_ = listener.Close()
	mutex.Lock()
	open := make([]*iproto.Channel, 0, len(channels))
	for channel := range channels {
		open = append(open, channel)
	}
	mutex.Unlock()
	var all sync.WaitGroup
	for _, channel := range open {
		all.Add(1)
		go func() {
			defer all.Done()
			channel.Shutdown()
			<-channel.Done()
		}()
	}
	all.Wait()
}
