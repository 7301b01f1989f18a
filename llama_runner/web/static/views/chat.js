// A first answer of a model. Nothing is kept: for more there are the clients that docs/clients.md names.

import * as api from "../api.js";
import { el, fill, renew } from "../dom.js";
import { count, seconds } from "../format.js";
import { button, field, name, problem } from "../widgets.js";
import { t } from "../texts.js";

export const title = "chat.title";
export const inNavigation = false;

export function show(container, context) {
  const model = context.parts[0] ?? "";
  const messages = [];
  const log = el("div", { class: "chat-log", role: "log", tabindex: 0, "aria-label": t("chat.log") });
  const text = el("textarea", { rows: 3, on: { keydown: onKey } });
  const send = el("button", { class: "primary" }, t("chat.send"));
  const told = el("p", { class: "soft", role: "status" });
  let asking = null;
  const stop = button(t("chat.stop"), async () => asking?.abort());
  stop.hidden = true;
  const form = el("form", { on: { submit } }, field(t("chat.message"), text, t("chat.keys")), el("div", { class: "buttons" }, send, stop, told));

  function onKey(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  }

  function say(role, content) {
    const words = el("div", { class: "words", dir: "auto" }, content);
    log.append(el("article", { class: `message ${role}`, "aria-label": t(`chat.${role}`) }, el("h2", null, t(`chat.${role}`)), words));
    log.scrollTop = log.scrollHeight;
    return words;
  }

  async function submit(event) {
    event.preventDefault();
    if (asking || text.value.trim() === "") return;
    messages.push({ role: "user", content: text.value });
    say("user", text.value);
    text.value = "";
    asking = new AbortController();
    [send.disabled, stop.hidden] = [true, false];
    fill(told, t("chat.waiting"));
    const words = say("assistant", "");
    const began = performance.now();
    try {
      const answer = await stream({ model, messages }, asking.signal, (now) => {
        const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
        renew(words, now.thought && el("details", null, el("summary", null, t("chat.thought")), now.thought), now.content);
        renew(told, t("chat.writing"));
        if (atEnd) log.scrollTop = log.scrollHeight;
      });
      messages.push({ role: "assistant", content: answer.content });
      fill(told, t("chat.took", { tokens: count(answer.tokens), time: seconds((performance.now() - began) / 1000) }));
    } catch (error) {
      messages.pop();
      if (error.name !== "AbortError") words.append(problem(error));
      fill(told, error.name === "AbortError" ? t("chat.stopped") : null);
    } finally {
      asking = null;
      [send.disabled, stop.hidden] = [false, true];
      if (text.isConnected) text.focus();
    }
  }

  context.signal.addEventListener("abort", () => asking?.abort());
  fill(container, el("p", null, name(model), " ", el("a", { href: `#/models/${api.part(model)}` }, t("chat.aboutModel"))), log, form);
  text.focus();
}

/** Send a chat; `onText` gets what has come so far. Returns the answer; raises what is wrong. */
async function stream(body, signal, onText) {
  const answer = await api.send("POST", "/v1/chat/completions", { body: { ...body, stream: true }, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const found = { content: "", thought: "", tokens: 0 };
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return found;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new api.ApiError(event.error.code ?? 500, event.error);
      const delta = event.choices?.[0]?.delta ?? {};
      found.content += delta.content ?? "";
      found.thought += delta.reasoning_content ?? "";
      found.tokens += delta.content || delta.reasoning_content ? 1 : 0;
      found.tokens = event.timings?.predicted_n ?? found.tokens;
    }
    onText(found);
  }
}
