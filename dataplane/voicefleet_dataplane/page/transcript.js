// What was said, from the Realtime API's events: a line for each item, filled as its parts come.

const USER = "conversation.item.input_audio_transcription.";
const AGENT = "response.output_audio_transcript.";
const MOST_LINES = 200;

export class Transcript {
  constructor(list, empty) {
    this.list = list;
    this.empty = empty;
    this.lines = new Map();
  }

  clear() {
    this.lines.clear();
    this.list.replaceChildren();
    this.empty.hidden = false;
  }

  onEvent(event) {
    switch (event.type) {
      case "input_audio_buffer.speech_started": return this.#line(event.item_id, "You");
      case `${USER}delta`: return this.#add(event.item_id, "You", event.delta);
      case `${USER}completed`: return this.#set(event.item_id, "You", event.transcript);
      case `${USER}failed`: return this.#set(event.item_id, "You", "(not understood)");
      case `${AGENT}delta`: return this.#add(event.item_id, "Agent", event.delta);
      case `${AGENT}done`: return this.#set(event.item_id, "Agent", event.transcript);
      case "response.function_call_arguments.done": return this.#set(event.call_id, "Tool", `${event.name ?? "call"}(${event.arguments})`);
      case "output_audio_buffer.cleared": return this.#note("Interrupted.");
    }
  }

  #line(id, who) {
    let line = this.lines.get(id);
    if (!line) {
      line = document.createElement("li");
      line.dataset.who = who;
      line.dataset.part = "true";
      line.textContent = "…";
      this.lines.set(id, line);
      this.list.append(line);
      this.empty.hidden = true;
      if (this.list.children.length > MOST_LINES) this.list.firstElementChild.remove();
      this.list.scrollTop = this.list.scrollHeight;
    }
    return line;
  }

  #add(id, who, text) {
    const line = this.#line(id, who);
    line.textContent = (line.textContent === "…" ? "" : line.textContent) + text;
  }

  #set(id, who, text) {
    const line = this.#line(id, who);
    line.textContent = text || "(nothing)";
    line.dataset.part = "false";
  }

  #note(text) {
    const line = this.#line(`note ${this.list.children.length} ${performance.now()}`, "");
    line.textContent = text;
  }
}
