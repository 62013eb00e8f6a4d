// The client's end of the protocol, for clients in Node. The first argument is the folder with the packages.
"use strict";

const {createHash} = require("node:crypto");
const {readFileSync} = require("node:fs");
const {createRequire} = require("node:module");
const {createInterface} = require("node:readline");

exports.packages = createRequire(`${process.argv[2]}/`);
exports.version = name => JSON.parse(readFileSync(`${process.argv[2]}/${name}/package.json`)).version;

const say = (event, fields) => process.stdout.write(`${JSON.stringify({event, ...fields})}\n`);
exports.say = say;

exports.sayMessage = (channel, message) => {
  const kind = typeof message === "string" ? "text" : "binary";
  const content = Buffer.from(message);
  say("message", {channel, kind, size: content.length, sha256: createHash("sha256").update(content).digest("hex")});
};

// The messages of a "send", one after the other: strings and buffers.
exports.messages = function* ({kind, text, size, fill = 0, count = 1}) {
  for (let number = 0; number < count; number++) {
    if (text !== undefined) { yield text; continue; }
    const content = Buffer.alloc(size);
    for (let at = 0; at < size; at++) content[at] = kind === "text" ? 97 + (7 * at + fill + number) % 26 : 31 * at + fill + number;
    yield kind === "text" ? content.toString() : content;
  }
};

exports.readPackets = path => {
  const data = readFileSync(path), packets = [];
  for (let at = 0; at < data.length;) {
    const end = at + 4 + data.readUInt16BE(at + 2);
    packets.push(data.subarray(at + 4, end));
    at = end;
  }
  return packets;
};

exports.written = (sequence, packet) => {
  const head = Buffer.alloc(4);
  head.writeUInt16BE(sequence, 0);
  head.writeUInt16BE(packet.length, 2);
  return Buffer.concat([head, packet]);
};

// Calls for a packet each 20 ms, on the whole; the result ends it.
exports.paced = send => {
  const began = performance.now();
  let sent = 0;
  const timer = setInterval(() => {
    while (sent * 20 <= performance.now() - began) send(sent++);
  }, 10);
  return () => clearInterval(timer);
};

// Does one command after the other, until stdin ends.
exports.serve = async commands => {
  for await (const line of createInterface({input: process.stdin})) {
    const command = JSON.parse(line);
    try {
      await commands[command.do](command);
    } catch (error) {
      say("error", {text: `${command.do}: ${error}`});
    }
  }
};
