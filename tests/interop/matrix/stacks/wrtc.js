// A client on libwebrtc in Node, by its package @roamhq/wrtc.
"use strict";

const {packages, say, version} = require("./lines.js");
const {RATE, readWav, writeWav} = require("./wav.js");
const {client} = require("./api.js");
const {RTCPeerConnection, MediaStream, nonstandard: {RTCAudioSource, RTCAudioSink}} = packages("@roamhq/wrtc");

const FRAME = RATE / 100;
let timer = null;
let sink = null;
let wanted = 0;  // samples still to be heard
let heard = [];
let path = "";

function hear({samples, channelCount, sampleRate}) {
  if (wanted <= 0) return;
  const count = samples.length / channelCount, part = new Int16Array(Math.round(count * RATE / sampleRate));
  for (let at = 0; at < part.length; at++) part[at] = samples[Math.floor(at * sampleRate / RATE) * channelCount];
  heard.push(part);
  wanted -= part.length;
  if (wanted > 0) return;
  writeWav(path, heard);
  say("audio", {form: "wav", seconds: heard.reduce((sum, {length}) => sum + length, 0) / RATE});
}

client(RTCPeerConnection, {bundlePolicy: "max-bundle"}, {
  attach(pc, {wav}) {
    const said = readWav(wav), source = new RTCAudioSource(), track = source.createTrack(), began = performance.now();
    let number = 0;
    timer = setInterval(() => {
      for (; number * 10 <= performance.now() - began; number++) {
        const samples = Int16Array.from({length: FRAME}, (_, at) => said[(number * FRAME + at) % said.length]);
        source.onData({samples, sampleRate: RATE, bitsPerSample: 16, channelCount: 1, numberOfFrames: FRAME});
      }
    }, 10);
    pc.ontrack = event => {
      sink = new RTCAudioSink(event.track);
      sink.ondata = hear;
    };
    pc.addTrack(track, new MediaStream([track]));
  },
  listen(command) { heard = []; wanted = command.seconds * RATE; path = command.path; },
  end() { clearInterval(timer); sink?.stop(); sink = null; },
}, version("@roamhq/wrtc"));
