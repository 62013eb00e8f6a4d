// A client on libdatachannel, by its Node package node-datachannel.
"use strict";

const {writeFileSync} = require("node:fs");
const {messages, packages, paced, readPackets, say, sayMessage, serve, written} = require("./lines.js");
const library = packages("node-datachannel");

const PAYLOAD_TYPE = 111;
const HEADER_BYTES = 12;
const TICKS = 960;

const channels = new Map();
let pc = null;
let endSpeech = () => {};
let listening = null;  // {path, packets, wanted}

function open({channel: name, label, protocol, ordered, negotiated, id, max_retransmits, max_lifetime_ms}) {
  const given = {protocol, negotiated, id, maxRetransmits: max_retransmits, maxPacketLifeTime: max_lifetime_ms};
  const options = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const channel = pc.createDataChannel(label, {unordered: ordered === false, ...options});
  channels.set(name, channel);
  channel.onOpen(() => say("open", {channel: name}));
  channel.onClosed(() => say("closed", {channel: name}));
  channel.onMessage(message => sayMessage(name, message));
}

function addAudio(packets) {
  const ssrc = 1 + Math.floor(Math.random() * 0xfffffffe);
  const audio = new library.Audio("audio", "SendRecv");
  audio.addOpusCodec(PAYLOAD_TYPE);
  audio.addSSRC(ssrc, "client", "client", "voice");
  const track = pc.addTrack(audio);
  track.setMediaHandler(new library.RtcpReceivingSession());
  track.onMessage(hear);
  const header = Buffer.alloc(HEADER_BYTES);
  header[0] = 0x80;
  header[1] = PAYLOAD_TYPE;
  header.writeUInt32BE(ssrc, 8);
  endSpeech = paced(number => {
    if (!track.isOpen()) return;
    header.writeUInt16BE(number & 0xffff, 2);
    header.writeUInt32BE(number * TICKS >>> 0, 4);
    track.sendMessageBinary(Buffer.concat([header, packets[number % packets.length]]));
  });
}

function hear(packet) {
  if (listening === null || (packet[1] & 0x7f) !== PAYLOAD_TYPE) return;
  const extension = packet[0] & 0x10 ? 4 + 4 * packet.readUInt16BE(HEADER_BYTES + 2) : 0;
  listening.packets.push(written(packet.readUInt16BE(2), packet.subarray(HEADER_BYTES + extension)));
  if (listening.packets.length < listening.wanted) return;
  writeFileSync(listening.path, Buffer.concat(listening.packets));
  say("audio", {form: "packets", seconds: listening.packets.length / 50});
  listening = null;
}

function hangUp() {
  endSpeech();
  pc?.close();
  pc = null;
}

const commands = {
  offer({call, packets, channels: wanted}) {
    channels.clear();
    const mine = pc = new library.PeerConnection("client", {iceServers: [], bindAddress: "127.0.0.1", disableAutoNegotiation: true});
    mine.onStateChange(state => say("state", {call, state}));
    mine.onGatheringStateChange(state => {
      if (state === "complete") say("offer", {sdp: mine.localDescription().sdp});
    });
    addAudio(readPackets(packets));
    wanted.forEach(open);
    mine.setLocalDescription("offer");
  },
  answer: ({sdp}) => pc.setRemoteDescription(sdp, "answer"),
  open,
  send(command) {
    const channel = channels.get(command.channel);
    for (const message of messages(command))
      typeof message === "string" ? channel.sendMessage(message) : channel.sendMessageBinary(message);
  },
  close: ({channel}) => channels.get(channel).close(),
  listen({seconds, path}) { listening = {path, packets: [], wanted: seconds * 50}; },
  hang_up: hangUp,
};

say("ready", {version: library.getLibraryVersion()});
serve(commands).then(() => { hangUp(); library.cleanup(); });
