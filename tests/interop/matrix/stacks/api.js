// What clients with the WebRTC API of browsers share, in Node: channels, messages, and the commands. `audio` is the stack's own.
"use strict";

const {messages, say, sayMessage, serve} = require("./lines.js");

// audio: {attach(pc, command), listen({seconds, path}), end()}
exports.client = (RTCPeerConnection, configuration, audio, version) => {
  const channels = new Map();
  let pc = null;

  function open(options) {
    const name = options.channel;
    const channel = pc.createDataChannel(options.label, {
      ordered: options.ordered ?? true,
      protocol: options.protocol ?? "",
      negotiated: options.negotiated ?? false,
      ...(options.id !== undefined && {id: options.id}),
      ...(options.max_retransmits !== undefined && {maxRetransmits: options.max_retransmits}),
      ...(options.max_lifetime_ms !== undefined && {maxPacketLifeTime: options.max_lifetime_ms}),
    });
    channels.set(name, channel);
    channel.binaryType = "arraybuffer";
    channel.onopen = () => say("open", {channel: name});
    channel.onclose = () => say("closed", {channel: name});
    channel.onmessage = ({data}) => sayMessage(name, data);
    if (channel.readyState === "open") say("open", {channel: name});
  }

  async function hangUp() {
    const ended = pc;
    pc = null;
    audio.end();
    await ended?.close();
  }

  const commands = {
    async offer(command) {
      channels.clear();
      const mine = pc = new RTCPeerConnection(configuration);
      mine.onconnectionstatechange = () => say("state", {call: command.call, state: mine.connectionState});
      await audio.attach(mine, command);
      command.channels.forEach(open);
      await mine.setLocalDescription(await mine.createOffer());
      say("offer", {sdp: mine.localDescription.sdp});
    },
    answer: ({sdp}) => pc.setRemoteDescription({type: "answer", sdp}),
    open,
    send(command) {
      const channel = channels.get(command.channel);
      for (const message of messages(command)) channel.send(message);
    },
    close: ({channel}) => channels.get(channel).close(),
    listen: command => audio.listen(command),
    hang_up: hangUp,
  };

  say("ready", {version});
  serve(commands).then(hangUp).then(() => process.exit(0));
};
