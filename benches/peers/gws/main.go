// An echo server on gws: echo PORT MODE, where MODE is plain, no-context or takeover.
package main

import (
	"fmt"
	"os"

	"github.com/lxzan/gws"
)

type echo struct {
	gws.BuiltinEventHandler
}

func (echo) OnMessage(socket *gws.Conn, message *gws.Message) {
	defer message.Close()
	_ = socket.WriteMessage(message.Opcode, message.Bytes())
}

func main() {
	var deflate gws.PermessageDeflate
	mode := ""
	if len(os.Args) == 3 {
		mode = os.Args[2]
	}
	switch mode {
	case "plain":
	case "no-context", "takeover":
		deflate = gws.PermessageDeflate{
			Enabled:               true,
			Level:                 6,
			Threshold:             1,
			ServerContextTakeover: mode == "takeover",
			ClientContextTakeover: mode == "takeover",
			ServerMaxWindowBits:   15,
			ClientMaxWindowBits:   15,
		}
	default:
		fmt.Fprintln(os.Stderr, "echo: PORT and one of plain, no-context, takeover are wanted")
		os.Exit(2)
	}
	server := gws.NewServer(echo{}, &gws.ServerOption{
		CheckUtf8Enabled:  true,
		PermessageDeflate: deflate,
	})
	fmt.Fprintln(os.Stderr, server.Run("127.0.0.1:"+os.Args[1]))
	os.Exit(1)
}
