// Recordings: WAV of 16 bits, mono, as tests/interop/matrix/content.py writes and reads them.
"use strict";

const {readFileSync, writeFileSync} = require("node:fs");

const RATE = 48000;
exports.RATE = RATE;

// The samples of a file of any rate, at 48 kHz: the nearest sample is good enough for being recognised.
exports.readWav = path => {
  const data = readFileSync(path), rate = data.readUInt32LE(24);
  let at = 12;
  while (data.toString("latin1", at, at + 4) !== "data") at += 8 + data.readUInt32LE(at + 4);
  const length = data.readUInt32LE(at + 4) >> 1, samples = new Int16Array(Math.floor(length * RATE / rate));
  for (let number = 0; number < samples.length; number++)
    samples[number] = data.readInt16LE(at + 8 + 2 * Math.floor(number * rate / RATE));
  return samples;
};

exports.writeWav = (path, parts) => {
  const samples = Buffer.concat(parts.map(part => Buffer.from(part.buffer, part.byteOffset, part.byteLength)));
  const head = Buffer.alloc(44);
  head.write("RIFF", 0); head.writeUInt32LE(36 + samples.length, 4); head.write("WAVEfmt ", 8);
  head.writeUInt32LE(16, 16); head.writeUInt16LE(1, 20); head.writeUInt16LE(1, 22);
  head.writeUInt32LE(RATE, 24); head.writeUInt32LE(2 * RATE, 28); head.writeUInt16LE(2, 32); head.writeUInt16LE(16, 34);
  head.write("data", 36); head.writeUInt32LE(samples.length, 40);
  writeFileSync(path, Buffer.concat([head, samples]));
};
