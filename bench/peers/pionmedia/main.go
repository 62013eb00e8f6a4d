// The media bench's peer: a WebRTC server on Pion that does what our transceiver does for the same agents.
//
//	pionmedia -http 127.0.0.1:0 -udp 127.0.0.1:0 -backend Echo|OpusStream|MediaStream [-agent ws://…]
//
// ICE-lite on one UDP socket, one certificate, GCM or AES-CM as the client likes. Prints the HTTP address and the UDP port; POST /offer answers.
// Agents' audio is paced at 20 ms. Opus is coded by the system's libopus, at the complexity that ours uses.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

const (
	frame        = 20 * time.Millisecond
	frameTicks   = 960
	queued       = 4096 // frames
	subprotocol  = "opus-stream.voicefleet.v1"
	mulawRate    = 8000
	mulawSamples = mulawRate / 50
)

var (
	backend = flag.String("backend", "Echo", "Echo, OpusStream or MediaStream")
	agent   = flag.String("agent", "", "the agent's WebSocket")
	bitrate = flag.Int("bitrate", 28000, "of our Opus")
	effort  = flag.Int("complexity", 5, "of our Opus")
	httpAt  = flag.String("http", "127.0.0.1:0", "where to answer offers")
	udpAt   = flag.String("udp", "127.0.0.1:0", "the one UDP socket")
	opusFmt = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1"}
)

// paced sends one queued frame each 20 ms.
func paced(frames <-chan []byte, track *webrtc.TrackLocalStaticRTP, done <-chan struct{}) {
	tick := time.NewTicker(frame)
	defer tick.Stop()
	packet := &rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 111}}
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			packet.Timestamp += frameTicks
			select {
			case packet.Payload = <-frames:
				_ = track.WriteRTP(packet)
				packet.SequenceNumber++
			default:
			}
		}
	}
}

func opusStream(remote *webrtc.TrackRemote, track *webrtc.TrackLocalStaticRTP, callID string) {
	dialer := websocket.Dialer{Subprotocols: []string{subprotocol}}
	socket, _, err := dialer.Dial(*agent, nil)
	if err != nil {
		log.Print(err)
		return
	}
	defer socket.Close()
	_ = socket.WriteJSON(map[string]any{"type": "start", "version": 1, "call_id": callID, "tenant": "", "session": map[string]any{}})
	frames, done := make(chan []byte, queued), make(chan struct{})
	defer close(done)
	go paced(frames, track, done)
	go func() {
		for {
			kind, message, err := socket.ReadMessage()
			if err != nil {
				return
			}
			if kind == websocket.BinaryMessage {
				select {
				case frames <- message:
				default:
				}
			}
		}
	}()
	for {
		packet, _, err := remote.ReadRTP()
		if err != nil {
			return
		}
		message := make([]byte, 6+len(packet.Payload))
		binary.BigEndian.PutUint16(message, packet.SequenceNumber)
		binary.BigEndian.PutUint32(message[2:], packet.Timestamp)
		copy(message[6:], packet.Payload)
		if socket.WriteMessage(websocket.BinaryMessage, message) != nil {
			return
		}
	}
}

type media struct {
	Track     string `json:"track,omitempty"`
	Chunk     string `json:"chunk,omitempty"`
	Timestamp string `json:"timestamp,omitempty"`
	Payload   string `json:"payload"`
}

type streamEvent struct {
	Event          string         `json:"event"`
	SequenceNumber string         `json:"sequenceNumber,omitempty"`
	Media          *media         `json:"media,omitempty"`
	Start          map[string]any `json:"start,omitempty"`
	Protocol       string         `json:"protocol,omitempty"`
	Version        string         `json:"version,omitempty"`
	StreamSid      string         `json:"streamSid,omitempty"`
}

func mediaStream(remote *webrtc.TrackRemote, track *webrtc.TrackLocalStaticRTP, callID string) {
	socket, _, err := websocket.DefaultDialer.Dial(*agent, nil)
	if err != nil {
		log.Print(err)
		return
	}
	defer socket.Close()
	sid := "MZ" + callID
	_ = socket.WriteJSON(streamEvent{Event: "connected", Protocol: "Call", Version: "1.0.0"})
	_ = socket.WriteJSON(streamEvent{Event: "start", SequenceNumber: "1", StreamSid: sid, Start: map[string]any{"streamSid": sid, "callSid": callID, "tracks": []string{"inbound"},
		"mediaFormat": map[string]any{"encoding": "audio/x-mulaw", "sampleRate": mulawRate, "channels": 1}}})
	decoder, encoder := newDecoder(), newEncoder(*bitrate, *effort)
	frames, done := make(chan []byte, queued), make(chan struct{})
	defer close(done)
	go paced(frames, track, done)
	go func() {
		for {
			var event streamEvent
			if socket.ReadJSON(&event) != nil {
				return
			}
			if event.Event != "media" || event.Media == nil {
				continue
			}
			codes, err := base64.StdEncoding.DecodeString(event.Media.Payload)
			if err != nil {
				return
			}
			for len(codes) >= mulawSamples {
				if payload := encoder.encode(codes[:mulawSamples]); len(payload) > 2 {
					frames <- payload
				}
				codes = codes[mulawSamples:]
			}
		}
	}()
	for chunk := 1; ; chunk++ {
		packet, _, err := remote.ReadRTP()
		if err != nil {
			return
		}
		codes := decoder.decode(packet.Payload)
		event := streamEvent{Event: "media", SequenceNumber: strconv.Itoa(chunk + 1), StreamSid: sid,
			Media: &media{"inbound", strconv.Itoa(chunk), strconv.Itoa(20 * (chunk - 1)), base64.StdEncoding.EncodeToString(codes)}}
		if socket.WriteJSON(event) != nil {
			return
		}
	}
}

func echo(remote *webrtc.TrackRemote, track *webrtc.TrackLocalStaticRTP) {
	for {
		packet, _, err := remote.ReadRTP()
		if err != nil {
			return
		}
		packet.Extension, packet.Extensions = false, nil
		_ = track.WriteRTP(packet)
	}
}

func answer(api *webrtc.API, certificate webrtc.Certificate, offer string) (string, error) {
	peer, err := api.NewPeerConnection(webrtc.Configuration{Certificates: []webrtc.Certificate{certificate}, BundlePolicy: webrtc.BundlePolicyMaxBundle})
	if err != nil {
		return "", err
	}
	peer.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateFailed {
			_ = peer.Close()
		}
	})
	track, err := webrtc.NewTrackLocalStaticRTP(opusFmt, "voice", "agent")
	if err != nil {
		return "", err
	}
	sender, err := peer.AddTrack(track)
	if err != nil {
		return "", err
	}
	go func() { // RTCP must be read for the interceptors to work
		buffer := make([]byte, 1500)
		for {
			if _, _, err := sender.Read(buffer); err != nil {
				return
			}
		}
	}()
	peer.OnTrack(func(remote *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		switch *backend {
		case "OpusStream":
			opusStream(remote, track, remote.ID())
		case "MediaStream":
			mediaStream(remote, track, remote.ID())
		default:
			echo(remote, track)
		}
	})
	if err = peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(peer)
	local, err := peer.CreateAnswer(nil)
	if err != nil {
		return "", err
	}
	if err = peer.SetLocalDescription(local); err != nil {
		return "", err
	}
	<-gathered
	return peer.LocalDescription().SDP, nil
}

func main() {
	flag.Parse()
	address, err := net.ResolveUDPAddr("udp4", *udpAt)
	check(err)
	socket, err := net.ListenUDP("udp4", address)
	check(err)
	_ = socket.SetReadBuffer(4 << 20)
	settings := webrtc.SettingEngine{}
	settings.SetLite(true)
	settings.SetICEUDPMux(webrtc.NewICEUDPMux(nil, socket))
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	engine := &webrtc.MediaEngine{}
	check(engine.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: opusFmt, PayloadType: 111}, webrtc.RTPCodecTypeAudio))
	interceptors := &interceptor.Registry{}
	check(webrtc.RegisterDefaultInterceptors(engine, interceptors))
	api := webrtc.NewAPI(webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(interceptors))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	certificate, err := webrtc.GenerateCertificate(key)
	check(err)
	http.HandleFunc("/offer", func(w http.ResponseWriter, r *http.Request) {
		offer, _ := io.ReadAll(r.Body)
		sdp, err := answer(api, *certificate, string(offer))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, sdp)
	})
	listener, err := net.Listen("tcp4", *httpAt)
	check(err)
	ready, _ := json.Marshal(map[string]any{"http": listener.Addr().String(), "udp": socket.LocalAddr().(*net.UDPAddr).Port, "opus": opusVersion()})
	fmt.Println(string(ready))
	log.Fatal(http.Serve(listener, nil))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
