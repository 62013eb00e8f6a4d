// A client in a browser, or in whatever else has the WebRTC API of browsers. The commands and events are described in
// tests/interop/matrix/__init__.py; they travel over a WebSocket to browser.py, which has the files.
"use strict";

const socket = new WebSocket(`ws://${location.host}/socket`);
socket.binaryType = "arraybuffer";
const say = (event, fields) => socket.send(JSON.stringify({event, ...fields}));

// 20 ms a message: a busy page loses nothing.
const RECORDER = `registerProcessor("recorder", class extends AudioWorkletProcessor {
  part = new Float32Array(960);
  length = 0;
  process([[samples]]) {
    for (const sample of samples ?? []) {
      this.part[this.length++] = sample;
      if (this.length === this.part.length) { this.port.postMessage(this.part.slice()); this.length = 0; }
    }
    return true;
  }
})`;
const context = new AudioContext({sampleRate: 48000});
const channels = new Map();
let pc = null;
let speech = null;
let recorder = null;
let wanted = 0;  // samples still to be heard
let heard = [];
let saying = Promise.resolve();  // messages are told in their order; digests take their time

function sayMessage(channel, data) {
  const kind = typeof data === "string" ? "text" : "binary";
  const bytes = kind === "text" ? new TextEncoder().encode(data) : new Uint8Array(data);
  saying = saying.then(async () => {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const sha256 = Array.from(digest, byte => byte.toString(16).padStart(2, "0")).join("");
    say("message", {channel, kind, size: bytes.length, sha256});
  });
}

function open(options) {
  const channel = pc.createDataChannel(options.label, {
    ordered: options.ordered ?? true,
    protocol: options.protocol ?? "",
    negotiated: options.negotiated ?? false,
    ...(options.id !== undefined && {id: options.id}),
    ...(options.max_retransmits !== undefined && {maxRetransmits: options.max_retransmits}),
    ...(options.max_lifetime_ms !== undefined && {maxPacketLifeTime: options.max_lifetime_ms}),
  });
  const name = options.channel;
  channels.set(name, channel);
  channel.binaryType = "arraybuffer";
  channel.onopen = () => say("open", {channel: name});
  channel.onclose = () => say("closed", {channel: name});
  channel.onmessage = event => sayMessage(name, event.data);
}

function send({channel, kind, text, size, fill = 0, count = 1}) {
  for (let number = 0; number < count; number++) {
    const content = new Uint8Array(size ?? 0);
    for (let at = 0; at < content.length; at++)
      content[at] = kind === "text" ? 97 + (7 * at + fill + number) % 26 : 31 * at + fill + number;
    channels.get(channel).send(text ?? (kind === "text" ? new TextDecoder().decode(content) : content));
  }
}

async function speak() {
  const recording = await (await fetch("/recording")).arrayBuffer();
  speech = context.createBufferSource();
  speech.buffer = await context.decodeAudioData(recording);
  speech.loop = true;
  const said = context.createMediaStreamDestination();
  speech.connect(said);
  speech.start();
  return said.stream;
}

function listen(event) {
  const stream = event.streams[0] || new MediaStream([event.track]);
  const player = new Audio();  // without a player Chromium pulls no audio out of the stream
  player.srcObject = stream; player.muted = true; player.play();
  recorder = new AudioWorkletNode(context, "recorder", {numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit"});
  recorder.port.onmessage = ({data}) => {
    if (wanted <= 0) return;
    heard.push(Int16Array.from(data, one => Math.max(-1, Math.min(1, one)) * 32767));
    wanted -= data.length;
    if (wanted <= 0) new Blob(heard).arrayBuffer().then(samples => socket.send(samples));
  };
  context.createMediaStreamSource(stream).connect(recorder);
}

async function offer({call, channels: wantedChannels}) {
  const mine = pc = new RTCPeerConnection({bundlePolicy: "max-bundle"});
  channels.clear();
  mine.onconnectionstatechange = () => say("state", {call, state: mine.connectionState});
  mine.ontrack = listen;
  const stream = await speak();
  for (const track of stream.getTracks()) mine.addTrack(track, stream);
  wantedChannels.forEach(open);
  await mine.setLocalDescription();
  say("offer", {sdp: mine.localDescription.sdp});  // without candidates: the fleet needs none
}

const commands = {
  offer,
  answer: ({sdp}) => pc.setRemoteDescription({type: "answer", sdp}),
  open,
  send,
  close: ({channel}) => channels.get(channel).close(),
  listen: ({seconds}) => { heard = []; wanted = seconds * context.sampleRate; },
  hang_up: () => { pc?.close(); speech?.stop(); recorder?.port.close(); pc = speech = recorder = null; },
};

let doing = Promise.resolve();
socket.onmessage = ({data}) => {
  const command = JSON.parse(data);
  doing = doing.then(() => commands[command.do](command)).catch(error => say("error", {text: `${command.do}: ${error}`}));
};
socket.onopen = async () => {
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([RECORDER], {type: "text/javascript"})));
  await context.resume();
  say("ready", {version: /(?:Chrome|Firefox)\/([\d.]+)/.exec(navigator.userAgent)[1]});
};
