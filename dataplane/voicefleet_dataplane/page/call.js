// One call: the peer connection, when each step of its set-up happened, its events and its statistics.
// Tells `listener` with method calls; touches no element of the page.

const CALLS = "/v1/realtime/calls";
const STATS_MS = 1000;
const FIRST_AUDIO_LOOK_MS = 10;
const CONNECT_TIMEOUT_MS = 15000;

export class CallError extends Error {}

export class Call {
  constructor({ key, pool, region }, listener) {
    this.listener = listener;
    this.key = key;
    this.url = new URL(CALLS, location.href);
    if (pool) this.url.searchParams.set("pool", pool);
    if (region) this.url.searchParams.set("region", region);
    this.marks = [];
    this.path = "";
    this.lastError = "";
    this.ended = false;
    this.timers = [];
  }

  // Places the call. Throws CallError with a sentence for people.
  async start() {
    this.began = performance.now();
    this.microphone = await this.#openMicrophone();
    this.#mark("microphone", "Microphone", "microphone");
    if (this.ended) return this.#release();
    const pc = (this.pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" }));
    for (const track of this.microphone.getTracks()) pc.addTrack(track, this.microphone);
    this.channel = pc.createDataChannel("oai-events");
    this.channel.onmessage = (event) => this.#hear(event.data);
    this.channel.onclose = () => this.#hungUp();
    pc.ontrack = (event) => this.listener.onAudio(event.streams[0] ?? new MediaStream([event.track]));
    pc.onconnectionstatechange = () => this.#connectionChanged();
    pc.oniceconnectionstatechange = () => {
      if (["connected", "completed"].includes(pc.iceConnectionState)) this.#mark("stun", "STUN check", "stun");
    };
    await pc.setLocalDescription(await pc.createOffer());
    const answer = await this.#post(pc.localDescription.sdp);
    if (this.ended) return this.hangUp("");
    this.#mark("answer", "POST and answer", "post");
    this.relay = /^a=candidate:\S+ 1 udp \d+ (\S+) (\d+)/im.exec(answer)?.slice(1).join(" port ") ?? "the relay";
    await pc.setRemoteDescription({ type: "answer", sdp: answer });
    this.timers.push(setInterval(() => this.#lookForAudio(), FIRST_AUDIO_LOOK_MS), setInterval(() => this.#measure(), STATS_MS));
    this.timeout = setTimeout(() => {
      if (pc.connectionState !== "connected") this.#fail(this.#unreachable());
    }, CONNECT_TIMEOUT_MS);
  }

  talk(open) {
    for (const track of this.microphone?.getAudioTracks() ?? []) track.enabled = open;
  }

  // Ends the call on both sides; `why` is shown.
  hangUp(why) {
    if (this.path) {
      const headers = { Authorization: `Bearer ${this.key}` };
      fetch(`${this.path}/hangup`, { method: "POST", headers, keepalive: true }).catch(() => {}); // the owner notices by itself
      this.path = "";
    }
    this.#release();
    if (this.ended) return;
    this.ended = true;
    this.listener.onEnded(why);
  }

  async #openMicrophone() {
    if (!navigator.mediaDevices) throw new CallError("A browser gives its microphone to https:// pages only: open this page by https.");
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      for (const track of stream.getAudioTracks()) track.enabled = false;
      return stream;
    } catch (error) {
      const why = { NotAllowedError: "it was not allowed", NotFoundError: "there is none" }[error.name] ?? error.message;
      throw new CallError(`No microphone: ${why}.`);
    }
  }

  async #post(sdp) {
    let response;
    try {
      response = await fetch(this.url, {
        method: "POST",
        headers: { "Content-Type": "application/sdp", Authorization: `Bearer ${this.key}` },
        body: sdp,
      });
    } catch (error) {
      throw new CallError(`The gateway cannot be reached: ${error.message}`);
    }
    const text = await response.text();
    if (response.status !== 201) throw new CallError(errorText(response, text));
    this.path = response.headers.get("Location");
    return text;
  }

  #mark(name, label, kind) {
    if (this.marks.some((mark) => mark.name === name)) return;
    this.marks.push({ name, label, kind, at: performance.now() - this.began });
    this.listener.onMark(this.marks);
  }

  #markConnected() {
    this.#mark("stun", "STUN check", "stun");
    this.#mark("dtls", "DTLS", "dtls");
  }

  #connectionChanged() {
    const state = this.pc.connectionState;
    if (state === "connected") this.#markConnected(), clearTimeout(this.timeout);
    if (state === "failed") this.#fail(this.marks.some((mark) => mark.name === "dtls") ? "The connection was lost." : this.#unreachable());
    if (state === "closed") return;
    this.listener.onState(state);
  }

  #unreachable() {
    return `No packet came back from ${this.relay}: is UDP to it allowed from here?`;
  }

  // The first that a browser hears of the other side's end, many seconds before its checks go unanswered.
  #hungUp() {
    this.path = "";
    this.#fail(`The other side hung up. ${this.lastError}`.trim());
  }

  #fail(why) {
    if (!this.ended) this.hangUp(why);
  }

  async #lookForAudio() {
    const receiver = this.pc.getReceivers().find(({ track }) => track?.kind === "audio");
    if (!receiver?.getSynchronizationSources().length) return;
    clearInterval(this.timers[0]);
    this.#markConnected(); // audio is decrypted with what DTLS agreed on; the event that says so may come later
    this.#mark("audio", "First audio", "audio");
  }

  async #measure() {
    if (!["connected", "disconnected"].includes(this.pc.connectionState)) return;
    const found = [...(await this.pc.getStats()).values()];
    const pair = found.find(({ type, nominated, state }) => type === "candidate-pair" && nominated && state === "succeeded");
    const inbound = found.find(({ type, kind }) => type === "inbound-rtp" && kind === "audio");
    const before = this.inbound ?? { packetsReceived: 0, packetsLost: 0 };
    const now = (this.inbound = { packetsReceived: inbound?.packetsReceived ?? 0, packetsLost: inbound?.packetsLost ?? 0 });
    const lost = Math.max(0, now.packetsLost - before.packetsLost);
    const due = lost + now.packetsReceived - before.packetsReceived;
    this.listener.onQuality({
      rtt: pair?.currentRoundTripTime === undefined ? null : pair.currentRoundTripTime * 1000,
      jitter: inbound?.jitter === undefined ? null : inbound.jitter * 1000,
      loss: due > 0 ? (100 * lost) / due : null,
    });
  }

  #hear(text) {
    let event;
    try {
      event = JSON.parse(text);
    } catch {
      return; // an agent's own business: this page reads the Realtime API's events only
    }
    if (!event || typeof event.type !== "string") return;
    if (event.type === "error") this.lastError = event.error?.message ?? "";
    this.listener.onEvent(event);
  }

  #release() {
    clearTimeout(this.timeout);
    for (const timer of this.timers) clearInterval(timer);
    for (const track of this.microphone?.getTracks() ?? []) track.stop();
    this.pc?.close();
  }
}

// The sentence of an error body, or what the status says.
export function errorText(response, text) {
  let message = "";
  try {
    message = JSON.parse(text).error.message;
  } catch {
    message = text.slice(0, 200);
  }
  const wait = response.headers.get("Retry-After");
  return `${response.status}: ${message || response.statusText}${wait ? ` (try again in ${wait} s)` : ""}`;
}
