// The page of eval/user_study.py; the questions stand in the element "data".
"use strict";
const study = JSON.parse(document.getElementById("data").textContent);
const store = "study " + study.id;
const shuffled = list => {
  const copy = list.slice();
  for (let k = copy.length - 1; k > 0; k--) {
    const other = Math.floor(Math.random() * (k + 1));
    [copy[k], copy[other]] = [copy[other], copy[k]];
  }
  return copy;
};
const fresh = () => ({
  participant: Array.from(crypto.getRandomValues(new Uint8Array(8)), n => n.toString(16).padStart(2, "0")).join(""),
  order: shuffled(study.items.map((_, k) => k)),
  sides: study.items.map(item => shuffled(item.choices.map((_, k) => k))),
  answers: [],
});
let state = null, since = 0;
try { state = JSON.parse(localStorage.getItem(store)); } catch (error) { state = null; }
if (!state || state.order.length !== study.items.length) state = fresh();
const save = () => { try { localStorage.setItem(store, JSON.stringify(state)); } catch (error) { /* private window */ } };
const element = (name, fields, ...inside) => {
  const made = Object.assign(document.createElement(name), fields);
  made.append(...inside);
  return made;
};
const show = () => {
  const done = state.answers.length, all = study.items.length;
  document.querySelector("#bar i").style.width = 100 * done / all + "%";
  document.getElementById("count").textContent = done + " of " + all;
  document.getElementById("back").disabled = done === 0;
  const asked = document.getElementById("asked"), choices = document.getElementById("choices");
  asked.replaceChildren(); choices.replaceChildren();
  if (done === all) {
    asked.append(element("h2", {textContent: "Thank you."}),
      element("p", {textContent: "Save your answers and send the file to whoever asked you."}));
    choices.append(element("button", {id: "save", className: "plain", textContent: "Save my answers", onclick: download}));
    document.getElementById("save").focus();
    return;
  }
  const place = state.order[done], item = study.items[place];
  if (item.picture) asked.append(element("img", {src: item.picture, alt: "the photograph"}));
  if (item.text) asked.append(element("blockquote", {textContent: item.text}));
  state.sides[place].forEach((k, side) => choices.append(element("button", {onclick: () => choose(side)},
    element("img", {src: item.choices[k].picture, alt: "face " + (side + 1)}), element("kbd", {textContent: side + 1}))));
  since = performance.now();
};
const choose = side => {
  const done = state.answers.length;
  if (done >= study.items.length) return;
  const place = state.order[done], item = study.items[place], sides = state.sides[place];
  if (side >= sides.length) return;
  state.answers.push({study: study.id, participant: state.participant, item: item.id,
    shown: sides.map(k => item.choices[k].key), chosen: item.choices[sides[side]].key,
    seconds: Math.round((performance.now() - since) / 100) / 10});
  save(); show();
};
const back = () => { state.answers.pop(); save(); show(); };
const download = () => {
  const lines = state.answers.map(answer => JSON.stringify(answer) + "\n");
  const url = URL.createObjectURL(new Blob(lines, {type: "application/jsonl"}));
  element("a", {href: url, download: "answers_" + state.participant + ".jsonl"}).click();
  URL.revokeObjectURL(url);
};
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (/^[1-9]$/.test(event.key)) choose(Number(event.key) - 1);
  if (event.key === "Backspace" && state.answers.length) { event.preventDefault(); back(); }
});
document.getElementById("back").onclick = back;
show();
