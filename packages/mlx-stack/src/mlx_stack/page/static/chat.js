// Chat: one model, or two side by side. What a model says is shown as text.

import {askModel, store} from './api.js';
import {choice, figure, h, refill, seconds, section} from './dom.js';
import {report} from './main.js';
import {CHATTING, namesWith} from './trial.js';

const LONGEST_IMAGE_BYTES = 20e6;
const state = {panes: [], images: []};
let parts = null;

export function open(main, model) {
  const file = h('input', {type: 'file', accept: 'image/*', multiple: true, 'aria-label': 'Images', onchange: () => attach(file)});
  parts = {panes: h('div', {class: 'chat'}), images: h('span', {class: 'dim small'}), picker: h('label', null, 'Images', file)};
  if (!state.panes.length) state.panes.push(pane(model || ''));
  else if (model) state.panes[0].model = model;
  const text = h('textarea', {'aria-label': 'Message', placeholder: 'Ask something. Enter sends, Shift+Enter begins a line.',
    onkeydown: (event) => { if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(text); } }});
  refill(main, section('Chat', null,
    h('div', {class: 'bar'},
      h('button', {type: 'button', onclick: toggleSecond}, 'One model or two'),
      h('button', {type: 'button', onclick: startOver}, 'Start over'),
      parts.picker, parts.images),
    parts.panes,
    h('form', {class: 'ask', onsubmit: (event) => { event.preventDefault(); send(text); }}, text,
      h('button', {class: 'main'}, 'Send'), h('button', {type: 'button', onclick: stop}, 'Stop'))));
  showPanes();
  text.focus();
}

export function update(topic) {
  if (topic === 'status' && parts && state.panes.some((each) => !each.model)) showPanes();
  if (topic === 'requests') showPicker();
}

// Images are for models that read them, or of which nobody knows.
function showPicker() {
  if (!parts) return;
  const lines = store.requests?.lines || {};
  parts.picker.hidden = !state.panes.every((each) => lines[each.model] && lines[each.model].sees_images !== false);
  if (parts.picker.hidden && state.images.length) {
    state.images = [];
    parts.images.textContent = '';
  }
}

export function close() {
  parts = null;
}

function pane(model) {
  return {model, messages: [], body: h('div', {class: 'said', tabindex: '0', role: 'log', 'aria-label': 'Conversation'}),
    said: h('p', {class: 'small dim', role: 'status'}), control: null};
}

function showPanes() {
  const all = namesWith(CHATTING);
  refill(parts.panes, state.panes.map((each, i) => {
    if (!each.model && all.length) each.model = all[Math.min(i, all.length - 1)];
    return h('div', null, h('div', {class: 'bar'}, choice('Model', all.includes(each.model) ? all : [each.model, ...all],
      each.model, (value) => { each.model = value; showPicker(); }, `model-${i}`), each.said), each.body);
  }));
  showPicker();
}

function toggleSecond() {
  if (state.panes.length === 1) state.panes.push(pane(namesWith(CHATTING)[1] || ''));
  else state.panes.pop().control?.abort();
  showPanes();
}

function startOver() {
  stop();
  for (const each of state.panes) {
    each.messages = [];
    each.said.textContent = '';
    refill(each.body);
  }
}

function stop() {
  for (const each of state.panes) each.control?.abort();
}

async function attach(file) {
  state.images = [];
  for (const each of file.files) {
    if (each.size > LONGEST_IMAGE_BYTES) report(new Error(`${each.name} is larger than 20 MB.`));
    else state.images.push(await new Promise((resolve) => {
      const reader = new FileReader();
      reader.addEventListener('load', () => resolve(reader.result));
      reader.readAsDataURL(each);
    }));
  }
  parts.images.textContent = state.images.length ? `${state.images.length} attached` : '';
  file.value = '';
}

function send(text) {
  const words = text.value.trim();
  if (!words && !state.images.length) return;
  const content = state.images.length
    ? [{type: 'text', text: words}, ...state.images.map((url) => ({type: 'image_url', image_url: {url}}))] : words;
  const pictures = state.images;
  text.value = '';
  state.images = [];
  parts.images.textContent = '';
  for (const each of state.panes) {
    if (each.control) continue;
    each.messages.push({role: 'user', content});
    each.body.append(h('div', {class: 'user'}, pictures.map((src) => h('img', {src, alt: 'attached image'})), words));
    answer(each);
  }
}

async function answer(pane) {
  const thought = h('span'), text = h('span');
  const folded = h('details', {hidden: true}, h('summary', null, 'Thinking'), thought);
  const box = h('div', null, folded, text);
  pane.body.append(box);
  pane.control = new AbortController();
  const began = performance.now();
  let first = null, pieces = 0, usage = null, problem = '', said = '';
  pane.said.textContent = 'waits…';
  try {
    for await (const event of stream(pane)) {
      if (event.error) throw new Error(event.error.message || 'The answer was cut off.');
      usage = event.usage || usage;
      const delta = event.choices?.[0]?.delta || {};
      const thinks = delta.reasoning_content || delta.reasoning || '';
      if (!delta.content && !thinks) continue;
      first ??= performance.now();
      pieces += 1;
      if (thinks) { folded.hidden = false; thought.append(thinks); }
      if (delta.content) { said += delta.content; text.append(delta.content); }
      const follows = pane.body.scrollHeight - pane.body.scrollTop - pane.body.clientHeight < 80;
      if (follows) pane.body.scrollTop = pane.body.scrollHeight;
      pane.said.textContent = `first token ${seconds((first - began) / 1000)}`;
    }
  } catch (error) {
    problem = error.name === 'AbortError' ? 'stopped' : error.message;
    if (error.name !== 'AbortError') box.append(h('span', {class: 'bad'}, error.message));
  }
  pane.control = null;
  if (said) pane.messages.push({role: 'assistant', content: said});
  else pane.messages.pop();
  const over = first === null ? 0 : (performance.now() - first) / 1000;
  const tokens = usage?.completion_tokens ?? null;
  pane.said.textContent = [problem === 'stopped' ? problem : '', first !== null && `first token ${seconds((first - began) / 1000)}`,
    over > 0 && pieces > 1 && `${tokens === null ? '~' : ''}${figure(((tokens ?? pieces) - 1) / over)} tokens/s`,
    tokens !== null && `${tokens} tokens`].filter(Boolean).join(', ');
}

// The JSON of each event of the model's answer.
async function* stream(pane) {
  const asked = {model: pane.model, messages: pane.messages, stream: true, stream_options: {include_usage: true}};
  const response = await askModel('chat/completions', asked, pane.control.signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      const data = line.startsWith('data:') ? line.slice(5).trim() : '';
      if (data && data !== '[DONE]') yield JSON.parse(data);
    }
  }
}
