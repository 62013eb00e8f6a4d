// The fleet as the gateway sees it, every few seconds while it is shown.

import { errorText } from "./call.js";

const EVERY_MS = 3000;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function table(caption, heads, rows) {
  const made = document.createElement("table");
  made.append(element("caption", caption));
  const head = made.createTHead().insertRow();
  for (const [text, kind] of heads) head.append(element("th", text, { scope: "col", class: kind ?? "" }));
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((cell, index) => line.append(element("td", cell.text ?? cell, { class: cell.kind ?? heads[index][1] ?? "" })));
  }
  return made;
}

const many = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
const age = (seconds) => (seconds === null ? "–" : seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`);

export class FleetView {
  constructor(place, problem, button, key) {
    Object.assign(this, { place, problem, button, key, timer: 0 });
    button.addEventListener("click", () => (this.timer ? this.stop() : this.watch()));
  }

  watch() {
    this.button.textContent = "Hide the fleet";
    this.timer = setInterval(() => this.#look(), EVERY_MS);
    this.#look();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    this.button.textContent = "Show the fleet";
    this.place.replaceChildren();
  }

  async #look() {
    try {
      const response = await fetch("/v1/fleet", { headers: { Authorization: `Bearer ${this.key()}` } });
      const text = await response.text();
      if (!response.ok) throw new Error(errorText(response, text));
      if (this.timer) this.#show(JSON.parse(text));
    } catch (error) {
      this.stop();
      this.problem.textContent = error.message;
    }
  }

  #show(fleet) {
    const calls = fleet.pools.reduce((sum, { sessions }) => sum + (sessions ?? 0), 0);
    const members = fleet.pools.reduce((sum, { count }) => sum + count, 0);
    this.problem.textContent =
      `${many(calls, "call")}, ${many(members, "transceiver")}, ${many(fleet.relays.count, "relay")}; topology ${fleet.revision}.` +
      (fleet.registry ? ` Loads are unknown: ${fleet.registry}.` : "");
    const tables = [
      table("Relays", [["Name"], ["Region"], ["Address"], ["State"]],
        fleet.relays.shown.map(({ name, region, address, state }) => [name, region, address, { text: state, kind: state }])),
      ...fleet.pools.map((pool) =>
        table(
          `Pool ${pool.name}: ${pool.sessions ?? "?"} of ${pool.capacity ?? "?"} calls` +
            (pool.members.length < pool.count ? `; ${pool.members.length} of ${pool.count} members, problems first` : ""),
          [["Transceiver"], ["Node"], ["Slot", "number"], ["Generation", "number"], ["State"], ["Calls", "number"], ["Oldest", "number"]],
          pool.members.map((member) => [
            member.name, member.node, String(member.slot), String(member.generation),
            { text: member.gray ? `${member.state}, gray` : member.state, kind: member.gray ? "gray" : member.state },
            member.sessions === null ? "?" : `${member.sessions} of ${member.capacity}`, age(member.oldest_s),
          ]))),
    ];
    this.place.replaceChildren(...tables);
  }
}
