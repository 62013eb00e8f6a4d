// A client on Pion. The commands and events are described in tests/interop/matrix/__init__.py.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
)

const frame = 20 * time.Millisecond

type channelOptions struct {
	Channel    string  `json:"channel"`
	Label      string  `json:"label"`
	Protocol   *string `json:"protocol"`
	Ordered    *bool   `json:"ordered"`
	Retransmit *uint16 `json:"max_retransmits"`
	Lifetime   *uint16 `json:"max_lifetime_ms"`
	Negotiated *bool   `json:"negotiated"`
	ID         *uint16 `json:"id"`
}

type command struct {
	Do string `json:"do"`
	channelOptions
	Call     string           `json:"call"`
	Packets  string           `json:"packets"`
	Channels []channelOptions `json:"channels"`
	SDP      string           `json:"sdp"`
	Kind     string           `json:"kind"`
	Text     *string          `json:"text"`
	Size     int              `json:"size"`
	Fill     int              `json:"fill"`
	Count    *int             `json:"count"`
	Seconds  float64          `json:"seconds"`
	Path     string           `json:"path"`
}

type event map[string]any

var speaking sync.Mutex

func say(kind string, fields event) {
	fields["event"] = kind
	line, _ := json.Marshal(fields)
	speaking.Lock()
	defer speaking.Unlock()
	fmt.Println(string(line))
}

type client struct {
	api      *webrtc.API
	pc       *webrtc.PeerConnection
	channels map[string]*webrtc.DataChannel
	over     chan struct{} // closed when this peer connection is
	mutex    sync.Mutex
	wanted   int // packets still to be heard
	heard    []byte
	path     string
}

func (c *client) do(one command) error {
	switch one.Do {
	case "offer":
		return c.offer(one)
	case "answer":
		return c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: one.SDP})
	case "open":
		return c.open(one.channelOptions)
	case "send":
		return c.send(one)
	case "close":
		return c.channels[one.Channel].Close()
	case "listen":
		c.mutex.Lock()
		defer c.mutex.Unlock()
		c.heard, c.path, c.wanted = nil, one.Path, int(one.Seconds*float64(time.Second/frame))
	case "hang_up":
		return c.hangUp()
	}
	return nil
}

func (c *client) hangUp() error {
	if c.pc == nil {
		return nil
	}
	pc := c.pc
	c.pc = nil
	close(c.over)
	if err := pc.Close(); err != nil { // version 3: when the other side has closed before
		fmt.Fprintln(os.Stderr, "close:", err)
	}
	return nil
}

func (c *client) offer(one command) error {
	pc, err := c.api.NewPeerConnection(webrtc.Configuration{BundlePolicy: webrtc.BundlePolicyMaxBundle})
	if err != nil {
		return err
	}
	c.pc, c.channels, c.over = pc, map[string]*webrtc.DataChannel{}, make(chan struct{})
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) { say("state", event{"call": one.Call, "state": state.String()}) })
	pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { c.listen(track) })
	track, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "voice", "client")
	if err != nil {
		return err
	}
	if _, err = pc.AddTrack(track); err != nil {
		return err
	}
	packets, err := readPackets(one.Packets)
	if err != nil {
		return err
	}
	go speak(track, packets, c.over)
	for _, channel := range one.Channels {
		if err = c.open(channel); err != nil {
			return err
		}
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	local, err := pc.CreateOffer(nil)
	if err != nil {
		return err
	}
	if err = pc.SetLocalDescription(local); err != nil {
		return err
	}
	<-gathered
	say("offer", event{"sdp": pc.LocalDescription().SDP})
	return nil
}

func (c *client) open(options channelOptions) error {
	channel, err := c.pc.CreateDataChannel(options.Label, &webrtc.DataChannelInit{
		Ordered: options.Ordered, MaxPacketLifeTime: options.Lifetime, MaxRetransmits: options.Retransmit,
		Protocol: options.Protocol, Negotiated: options.Negotiated, ID: options.ID,
	})
	if err != nil {
		return err
	}
	name := options.Channel
	c.channels[name] = channel
	channel.OnOpen(func() { say("open", event{"channel": name}) })
	channel.OnClose(func() { say("closed", event{"channel": name}) })
	channel.OnMessage(func(message webrtc.DataChannelMessage) {
		kind, digest := "binary", sha256.Sum256(message.Data)
		if message.IsString {
			kind = "text"
		}
		say("message", event{"channel": name, "kind": kind, "size": len(message.Data), "sha256": hex.EncodeToString(digest[:])})
	})
	return nil
}

func (c *client) send(one command) error {
	channel, count := c.channels[one.Channel], 1
	if one.Count != nil {
		count = *one.Count
	}
	for number := range count {
		content := make([]byte, one.Size)
		for at := range content {
			if one.Kind == "text" {
				content[at] = byte('a' + (7*at+one.Fill+number)%26)
			} else {
				content[at] = byte(31*at + one.Fill + number)
			}
		}
		var err error
		switch {
		case one.Text != nil:
			err = channel.SendText(*one.Text)
		case one.Kind == "text":
			err = channel.SendText(string(content))
		default:
			err = channel.Send(content)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *client) listen(track *webrtc.TrackRemote) {
	for {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		c.mutex.Lock()
		if c.wanted > 0 {
			c.heard = binary.BigEndian.AppendUint16(c.heard, packet.SequenceNumber)
			c.heard = binary.BigEndian.AppendUint16(c.heard, uint16(len(packet.Payload)))
			c.heard = append(c.heard, packet.Payload...)
			if c.wanted--; c.wanted == 0 {
				if err = os.WriteFile(c.path, c.heard, 0o600); err != nil {
					say("error", event{"text": err.Error()})
				} else {
					say("audio", event{"form": "packets"})
				}
			}
		}
		c.mutex.Unlock()
	}
}

func speak(track *webrtc.TrackLocalStaticSample, packets [][]byte, over <-chan struct{}) {
	tick := time.NewTicker(frame)
	defer tick.Stop()
	for at := 0; ; at = (at + 1) % len(packets) {
		select {
		case <-over:
			return
		case <-tick.C:
			_ = track.WriteSample(media.Sample{Data: packets[at], Duration: frame})
		}
	}
}

func readPackets(path string) ([][]byte, error) {
	data, err := os.ReadFile(path)
	var packets [][]byte
	for len(data) >= 4 {
		end := 4 + int(binary.BigEndian.Uint16(data[2:]))
		packets, data = append(packets, data[4:end]), data[end:]
	}
	return packets, err
}

func version() string {
	build, _ := debug.ReadBuildInfo()
	for _, module := range build.Deps {
		if strings.HasPrefix(module.Path, "github.com/pion/webrtc/") {
			return module.Version
		}
	}
	return ""
}

func main() {
	settings := webrtc.SettingEngine{}
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetIPFilter(func(address net.IP) bool { return address.IsLoopback() })
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	codecs := &webrtc.MediaEngine{} // which version 3 does not fill by itself
	if err := codecs.RegisterDefaultCodecs(); err != nil {
		panic(err)
	}
	c := &client{api: webrtc.NewAPI(webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(codecs))}
	say("ready", event{"version": version()})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one command
		err := json.Unmarshal(lines.Bytes(), &one)
		if err == nil {
			err = c.do(one)
		}
		if err != nil {
			say("error", event{"text": one.Do + ": " + err.Error()})
		}
	}
	_ = c.hangUp()
}
