// Try: a form for each kind of model. The tier in the address says which one is shown.

import {store} from './api.js';
import {h, refill} from './dom.js';
import {CHATTING, namesWith} from './trial.js';
import * as chat from './chat.js';
import {compare, order} from './reading.js';
import {hear, speak} from './sound.js';

const KINDS = [['Chat', CHATTING, chat], ['Compare texts', ['embedding'], compare], ['Order texts', ['rerank'], order],
  ['Transcribe', ['speech-to-text'], hear], ['Speak', ['text-to-speech'], speak]];
let place = null, shown = null, wanted = '';

export function open(main, [name]) {
  wanted = name || '';
  place = {kinds: h('nav', {class: 'kinds', 'aria-label': 'What to try'}), form: h('div')};
  refill(main, place.kinds, place.form);
  show();
}

// What a model is for may only be known now.
export function update(topic) {
  if (['status', 'requests'].includes(topic)) show(topic);
}

export function close() {
  shown?.close();
  place = shown = null;
}

function show(topic) {
  if (!store.requests && !store.status) return void refill(place.form, h('p', {class: 'dim'}, 'Looking…'));
  const [, , kind] = KINDS.find(([, roles]) => namesWith(roles).includes(wanted)) || KINDS[0];
  const offered = KINDS.map(([title, roles, each]) => [title, each, namesWith(roles)])
    .filter(([, each, names]) => names.length || each === chat);
  const links = offered.map(([title, each, names]) => [title, `#try/${encodeURIComponent(names[0] || '')}`, each === kind]);
  const words = JSON.stringify(links);
  if (place.words !== words) {
    place.words = words;
    place.kinds.hidden = links.length < 2;
    refill(place.kinds, links.map(([title, href, isShown]) =>
      h('a', {href, 'aria-current': isShown ? 'page' : null, 'data-key': title}, title)));
  }
  if (kind === shown) return void kind.update(topic);
  shown?.close();
  shown = kind;
  kind.open(place.form, wanted);
}
