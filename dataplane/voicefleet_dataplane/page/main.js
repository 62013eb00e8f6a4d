// The page: its elements, and what happens to them.

import { Call, CallError } from "./call.js";
import { Plot, waterfall } from "./drawings.js";
import { FleetView } from "./fleet.js";
import { Transcript } from "./transcript.js";

const $ = (id) => document.getElementById(id);
const STATES = { connecting: "Connecting …", connected: "Connected.", disconnected: "No packets come: waiting for the network …" };

const plots = { rtt: new Plot($("plots"), "Round trip", "ms"), jitter: new Plot($("plots"), "Jitter", "ms"), loss: new Plot($("plots"), "Loss", "%") };
const transcript = new Transcript($("transcript"), $("no-transcript"));
let call = null;
let meter = 0;

// A key is kept for this tab alone.
$("key").value = sessionStorage.getItem("voicefleet-key") ?? "";
$("key").addEventListener("change", () => sessionStorage.setItem("voicefleet-key", $("key").value));
$("sign-in").addEventListener("submit", (event) => event.preventDefault());
new FleetView($("fleet-view"), $("fleet-problem"), $("watch-fleet"), () => $("key").value.trim());

const listener = {
  onState: (state) => show(state, STATES[state] ?? state),
  onMark: (marks) => waterfall($("waterfall"), marks),
  onAudio: play,
  onQuality: (quality) => Object.entries(plots).forEach(([name, plot]) => plot.add(quality[name])),
  onEvent(event) {
    transcript.onEvent(event);
    if (event.type === "error") problem(event.error?.message ?? "The agent reported an error.");
  },
  onEnded(why) {
    call = null;
    cancelAnimationFrame(meter);
    $("level").value = 0;
    show("idle", "Not connected.");
    problem(why);
  },
};

$("connect").addEventListener("click", async () => {
  if (!$("sign-in").reportValidity()) return;
  problem("");
  transcript.clear();
  Object.values(plots).forEach((plot) => plot.clear());
  show("connecting", STATES.connecting);
  const mine = (call = new Call({ key: $("key").value.trim(), pool: $("pool").value.trim(), region: $("region").value.trim() }, listener));
  try {
    await mine.start();
    if (call === mine) talk($("open-microphone").checked);
  } catch (error) {
    mine.hangUp(error instanceof CallError ? error.message : `The call failed: ${error.message}`);
  }
});
$("hang-up").addEventListener("click", () => call?.hangUp(""));
addEventListener("pagehide", () => call?.hangUp(""));

// Press to talk: pointer, or space and Enter on the button, or space anywhere else that takes no text.
$("talk").addEventListener("pointerdown", (event) => {
  $("talk").setPointerCapture(event.pointerId);
  talk(true);
});
for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) $("talk").addEventListener(name, () => talk(false));
let held = false; // by the space bar: wherever the focus is by then, its end is the end
addEventListener("keydown", (event) => {
  if (!call || event.code !== "Space" || (event.target !== $("talk") && event.target.closest("input, button, summary"))) return;
  event.preventDefault();
  if (!event.repeat) talk((held = true));
});
addEventListener("keyup", (event) => {
  if (held && event.code === "Space") talk((held = false));
});
addEventListener("blur", () => talk(false)); // a key that goes up elsewhere is not seen here
$("open-microphone").addEventListener("change", () => talk(false));

function talk(pressed) {
  const open = Boolean(call) && (pressed || $("open-microphone").checked);
  call?.talk(open);
  $("talk").setAttribute("aria-pressed", String(open));
  $("talk").textContent = open ? "Listening to you" : "Hold to talk";
}

function show(state, text) {
  $("call").dataset.state = state;
  $("state").textContent = text;
  $("connect").disabled = state !== "idle";
  $("hang-up").disabled = state === "idle";
  $("talk").disabled = state === "idle";
  if (state === "idle") talk(false);
}

function problem(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text;
}

function play(stream) {
  $("agent").srcObject = stream;
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 512 });
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const look = () => {
    if (!call) return context.close();
    analyser.getFloatTimeDomainData(samples);
    $("level").value = Math.min(1, 4 * Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / samples.length));
    meter = requestAnimationFrame(look);
  };
  look();
}
