// A client on werift, which is written in TypeScript.
"use strict";

const {writeFileSync} = require("node:fs");
const {packages, paced, readPackets, say, version, written} = require("./lines.js");
const {client} = require("./api.js");
const {MediaStreamTrack, RTCPeerConnection, RtpHeader, RtpPacket, RTCRtpCodecParameters} = packages("werift");

const PAYLOAD_TYPE = 111;
const TICKS = 960;
const OPUS = new RTCRtpCodecParameters({mimeType: "audio/opus", clockRate: 48000, channels: 2, payloadType: PAYLOAD_TYPE});

let endSpeech = () => {};
let listening = null;  // {path, packets, wanted}

function hear({header, payload}) {
  if (listening === null || !payload.length) return;
  listening.packets.push(written(header.sequenceNumber, payload));
  if (listening.packets.length < listening.wanted) return;
  writeFileSync(listening.path, Buffer.concat(listening.packets));
  say("audio", {form: "packets", seconds: listening.packets.length / 50});
  listening = null;
}

client(RTCPeerConnection, {
  bundlePolicy: "max-bundle", codecs: {audio: [OPUS], video: []}, iceServers: [], iceAdditionalHostAddresses: ["127.0.0.1"],
}, {
  attach(pc, {packets: path}) {
    const packets = readPackets(path), track = new MediaStreamTrack({kind: "audio"}), ssrc = 1 + Math.floor(Math.random() * 0xfffffffe);
    pc.ontrack = event => event.track.onReceiveRtp.subscribe(hear);
    pc.addTrack(track);
    endSpeech = paced(number => {
      if (pc.connectionState !== "connected") return;
      const header = new RtpHeader({payloadType: PAYLOAD_TYPE, sequenceNumber: number & 0xffff, timestamp: number * TICKS >>> 0, ssrc});
      track.writeRtp(new RtpPacket(header, packets[number % packets.length]));
    });
  },
  listen({seconds, path}) { listening = {path, packets: [], wanted: seconds * 50}; },
  end() { endSpeech(); },
}, version("werift"));
