// Logs: one service's, followed, filtered.

import {get} from './api.js';
import {choice, h, refill, section} from './dom.js';
import {attempt} from './main.js';

const EVERY_MS = 1500, LINES = 1000;
let chosen = '', words = '', follows = true, timer = null, tag = null, lines = [], box = null, found = null;

export async function open(main, [name]) {
  box = h('pre', {class: 'log', tabindex: '0', role: 'log', 'aria-label': 'Log'});
  found = h('span', {class: 'dim small', role: 'status'});
  const list = await attempt(() => get('logs'));
  if (!box) return;
  const names = (list?.logs || []).map((each) => each.name);
  chosen = name || (names.includes(chosen) ? chosen : names[0]) || '';
  if (!chosen) {
    refill(main, section('Logs', null, h('p', {class: 'empty'}, 'There are no logs yet: nothing has been started.')));
    return;
  }
  refill(main, section('Logs', null, h('div', {class: 'bar'},
    choice('Service', names.includes(chosen) ? names : [chosen, ...names], chosen, (value) => { chosen = value; tag = null; load(); }),
    h('input', {type: 'search', value: words, class: 'grow', placeholder: 'show lines with…', 'aria-label': 'Filter lines',
      oninput: (event) => { words = event.target.value; show(); }}),
    h('label', null, 'Follow', h('input', {type: 'checkbox', checked: follows,
      onchange: (event) => { follows = event.target.checked; if (follows) load(); }})), found), box));
  tag = null;
  load();
}

export function close() {
  clearTimeout(timer);
  box = null;
}

async function load() {
  clearTimeout(timer);
  const name = chosen;
  const answer = await get(`logs/${encodeURIComponent(name)}`, {tail: LINES}, tag ? {'if-none-match': tag} : {})
    .catch((error) => ({lines: [error.message], etag: null}));
  if (!box || name !== chosen) return;
  if (answer) {
    tag = answer.etag;
    lines = answer.lines;
    show();
  }
  if (follows) timer = setTimeout(load, document.hidden ? 10 * EVERY_MS : EVERY_MS);
}

function show() {
  const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40 || !box.childNodes.length;
  const needle = words.toLowerCase();
  const shown = needle ? lines.filter((line) => line.toLowerCase().includes(needle)) : lines;
  found.textContent = needle ? `${shown.length} of ${lines.length} lines` : '';
  refill(box, shown.length ? shown.map((line) => marked(line, needle)) : h('span', {class: 'empty'}, 'No lines.'));
  if (isAtEnd) box.scrollTop = box.scrollHeight;
}

function marked(line, needle) {
  if (!needle) return `${line}\n`;
  const parts = [], lower = line.toLowerCase();
  let at = 0;
  for (let next = lower.indexOf(needle); next >= 0; next = lower.indexOf(needle, at)) {
    parts.push(line.slice(at, next), h('mark', null, line.slice(next, next + needle.length)));
    at = next + needle.length;
  }
  return [...parts, `${line.slice(at)}\n`];
}
