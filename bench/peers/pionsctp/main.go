// An SCTP end of Pion over UDP, without DTLS, that says back each message in the stream in which it came: what bench/sctp.py compares with.
package main

import (
	"encoding/json"
	"errors"
	"log"
	"net"
	"os"

	"github.com/pion/logging"
	"github.com/pion/sctp"
)

const maxMessage = 262_144

// peerConn is a UDP socket whose peer is who sent the first packet.
type peerConn struct {
	*net.UDPConn
	peer *net.UDPAddr
}

func (c *peerConn) Read(b []byte) (int, error) {
	n, from, err := c.ReadFromUDP(b)
	if c.peer == nil {
		c.peer = from
	}
	return n, err
}

func (c *peerConn) Write(b []byte) (int, error) {
	if c.peer == nil {
		return len(b), nil
	}
	return c.WriteToUDP(b, c.peer)
}

func (c *peerConn) RemoteAddr() net.Addr { return c.peer }

func echo(stream *sctp.Stream) {
	buffer := make([]byte, maxMessage)
	for {
		n, kind, err := stream.ReadSCTP(buffer)
		if err != nil {
			return
		}
		if _, err := stream.WriteSCTP(buffer[:n], kind); err != nil && !errors.Is(err, sctp.ErrStreamClosed) {
			log.Print(err)
			return
		}
	}
}

func main() {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"udp": conn.LocalAddr().(*net.UDPAddr).Port, "version": "1.12.0"}); err != nil {
		log.Fatal(err)
	}
	association, err := sctp.Server(sctp.Config{
		NetConn: &peerConn{UDPConn: conn}, MaxMessageSize: maxMessage, LoggerFactory: logging.NewDefaultLoggerFactory(),
	})
	if err != nil {
		log.Fatal(err)
	}
	for {
		stream, err := association.AcceptStream()
		if err != nil {
			return
		}
		go echo(stream)
	}
}
