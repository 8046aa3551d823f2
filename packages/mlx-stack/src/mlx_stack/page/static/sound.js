// Sounds: a file into words, and words into a sound.

import {askModel} from './api.js';
import {bytes, facts, figure, h, seconds, table} from './dom.js';
import {trial} from './trial.js';

const LARGEST_FILE_BYTES = 64 * 2 ** 20 - 64 * 1024;  // the form around it counts too
const LONGEST_TEXT = 4096, WAV_HEAD_BYTES = 44;

const file = h('input', {type: 'file', accept: 'audio/*,video/mp4,video/webm', required: true, onchange: listenTo});
const language = h('input', {size: 6, autocomplete: 'off', placeholder: 'any', pattern: '[A-Za-z]{2,3}',
  title: 'The code of a language, such as en or de'});
const heard = h('audio', {controls: true, hidden: true, 'aria-label': 'The chosen file'});

export const hear = trial({
  role: 'speech-to-text', title: 'Transcribe a file', verb: 'Transcribe',
  fields: [h('div', {class: 'bar'}, h('label', null, 'Audio file', file), h('label', null, 'Language', language)), heard],
  async run(model, signal) {
    const [chosen] = file.files;
    if (chosen.size > LARGEST_FILE_BYTES) throw new Error(`${chosen.name} has ${bytes(chosen.size)}; at most 64 MiB can be sent.`);
    const form = new FormData(), began = performance.now();
    for (const [name, value] of Object.entries({model, response_format: 'verbose_json', language: language.value.trim().toLowerCase()})) {
      if (value) form.append(name, value);
    }
    form.append('file', chosen);
    const found = await (await askModel('audio/transcriptions', form, signal)).json();
    const took = (performance.now() - began) / 1000;
    return [h('p', {class: 'large said-by-model'}, found.text || h('span', {class: 'dim'}, 'No words were heard.')),
      facts([['Language', found.language], found.duration && ['Length', seconds(found.duration)], ['Took', seconds(took)],
        found.duration && ['Speed', `${figure(found.duration / took)} × real time`]]),
      found.segments?.length > 1 && table([
        ['From', (row) => time(row.start), {num: true}], ['To', (row) => time(row.end), {num: true}],
        ['Words', (row) => row.text.trim(), {class: 'wrap wide'}],
      ], found.segments, {label: 'Segments'})];
  },
});

function listenTo() {
  URL.revokeObjectURL(heard.src);
  heard.hidden = !file.files.length;
  if (file.files.length) heard.src = URL.createObjectURL(file.files[0]);
  else heard.removeAttribute('src');
}

const words = h('textarea', {required: true, maxlength: LONGEST_TEXT}), voice = h('input', {autocomplete: 'off', placeholder: 'the model’s own'});
let spoken = '';

export const speak = trial({
  role: 'text-to-speech', title: 'Speak a text', verb: 'Speak',
  fields: [h('label', null, 'Text', words), h('div', {class: 'bar'}, h('label', null, 'Voice', voice))],
  async run(model, signal) {
    const asked = {model, input: words.value, response_format: 'wav'}, began = performance.now();
    if (voice.value.trim()) asked.voice = voice.value.trim();
    const reader = (await askModel('audio/speech', asked, signal)).body.getReader(), pieces = [];
    let first = 0, size = 0;
    for (;;) {
      const {done, value} = await reader.read();
      if (done) break;
      pieces.push(value);
      size += value.length;
      if (!first && size > WAV_HEAD_BYTES) first = performance.now();
    }
    const took = (performance.now() - began) / 1000, [sound, length] = whole(pieces, size);
    URL.revokeObjectURL(spoken);
    spoken = URL.createObjectURL(new Blob([sound], {type: 'audio/wav'}));
    const player = h('audio', {controls: true, src: spoken, 'aria-label': 'What the model says'});
    player.play().catch(() => {});  // a browser may want to be asked; then the player is there
    return [h('div', {class: 'bar'}, player, h('a', {class: 'button', href: spoken, download: 'speech.wav'}, 'Save')),
      facts([length && ['Length', seconds(length)], first && ['First sound', seconds((first - began) / 1000)],
        ['Took', seconds(took)], length && ['Speed', `${figure(length / took)} × real time`]])];
  },
});

// One file of its pieces, and how long it plays; a sound that is sent while it is made doesn't know
// in its head how long it is.
function whole(pieces, size) {
  const sound = new Uint8Array(size), head = new DataView(sound.buffer);
  let at = 0;
  for (const piece of pieces) {
    sound.set(piece, at);
    at += piece.length;
  }
  const is = (offset, name) => size >= WAV_HEAD_BYTES && [...name].every((each, i) => sound[offset + i] === each.charCodeAt(0));
  if (!is(0, 'RIFF') || !is(36, 'data')) return [sound, null];
  head.setUint32(4, size - 8, true);
  head.setUint32(40, size - WAV_HEAD_BYTES, true);
  return [sound, (size - WAV_HEAD_BYTES) / head.getUint32(28, true)];
}

const time = (value) => `${Math.floor(value / 60)}:${(value % 60).toFixed(1).padStart(4, '0')}`;
