// Requests: the ledger, filtered; one request's timeline.

import {get} from './api.js';
import {legend, timeline} from './charts.js';
import {bytes, choice, clock, count, facts, figure, h, refill, seconds, section, table} from './dom.js';
import {attempt} from './main.js';
import {store} from './api.js';

const PAGE = 100;
let filter = {failed: '', tier: '', key: ''}, rows = [], body = null, isWhole = false, asked = null;

export function open(main, [number]) {
  if (number) {
    showOne(main, number);
    return;
  }
  body = h('div');
  const tiers = (store.status?.services || []).filter((each) => ['engine', 'replica'].includes(each.kind)).map((each) => each.name);
  const set = (name) => (value) => { filter[name] = value; load(); };
  const key = h('input', {value: filter.key, 'aria-label': 'Key', placeholder: 'any key',
    onchange: (event) => set('key')(event.target.value.trim())});
  refill(main, section('Requests', null, h('div', {class: 'bar'},
    choice('Result', [['', 'any'], ['no', 'answered'], ['yes', 'failed']], filter.failed, set('failed')),
    choice('Tier', [['', 'any'], ...tiers], filter.tier, set('tier')),
    h('label', null, 'Key', key)), body));
  load();
}

export function update(topic) {
  if (topic === 'recent' && body && rows.length <= PAGE && !body.contains(document.activeElement)) load();
}

export function close() {
  body = null;
}

async function load(before) {
  const turn = asked = {};
  const found = await attempt(() => get('requests', {...filter, limit: PAGE, before}));
  if (!found || !body || turn !== asked) return;  // answers overtake each other
  rows = before ? [...rows, ...found.requests] : found.requests;
  isWhole = found.requests.length < PAGE;
  refill(body, table([
    ['When', (row) => h('a', {href: `#requests/${row.id}`, 'data-key': `r${row.id}`}, clock(row.at))],
    ['Who', (row) => [h('span', {class: 'name'}, row.key), ' ', h('span', {class: 'dim narrow-off'}, row.program)]],
    ['Tier', (row) => row.tier + (row.fallback_from ? ` for ${row.fallback_from}` : '')],
    ['Result', result],
    ['Waited', (row) => seconds(row.queue_s), {num: true, class: 'narrow-off'}],
    ['First token', (row) => seconds(row.ttft_s), {num: true, class: 'narrow-off'}],
    ['Took', (row) => seconds(row.seconds), {num: true}],
    ['Read', (row) => count(row.prompt_tokens), {num: true, class: 'narrow-off'}],
    ['Reused', (row) => count(row.cached_tokens), {num: true, class: 'narrow-off'}],
    ['Written', (row) => count(row.completion_tokens), {num: true, class: 'narrow-off'}],
    ['tok/s', (row) => figure(row.generation_tps), {num: true}],
  ], rows, {empty: 'No matching requests.', label: 'Requests'}),
  isWhole ? null : h('p', null, h('button', {type: 'button', 'data-key': 'older',
    onclick: () => load(String(rows.at(-1).id))}, 'Older requests')));
}

function result(row) {
  if (row.status === 200) return h('span', {class: 'good'}, '200');
  return row.status === 499 ? h('span', {class: 'dim'}, '499 left') : h('span', {class: 'bad'}, row.status);
}

async function showOne(main, number) {
  const row = await attempt(() => get(`requests/${encodeURIComponent(number)}`));
  if (!row) {
    refill(main, section('Request', null, h('p', null, h('a', {href: '#requests'}, 'All requests'))));
    return;
  }
  const first = row.ttft_s ?? row.seconds;
  const spans = [
    {name: `waited ${seconds(row.queue_s)}`, value: row.queue_s || 0, kind: 'c-queue'},
    {name: row.ttft_s === null ? `answered after ${seconds(first - row.queue_s)}` : `read the prompt ${seconds(first - row.queue_s)}`,
      value: Math.max(first - row.queue_s, 0), kind: 'c-read'},
    {name: `wrote ${seconds(row.seconds - first)}`, value: Math.max(row.seconds - first, 0), kind: 'c-write'}];
  const reused = row.cached_tokens === null || row.prompt_tokens === null ? 'the engine does not say'
    : `${count(row.cached_tokens)} of ${count(row.prompt_tokens)} tokens`;
  refill(main, section(`Request ${row.id}`, null,
    h('p', null, h('a', {href: '#requests'}, 'All requests')),
    timeline(spans, `Timeline: ${spans.map((each) => each.name).join(', ')}`), legend(spans),
    facts([
      ['Came', new Date(row.at).toLocaleString()], ['Key', row.key], ['Program', row.program || 'unknown'],
      ['Protocol', row.protocol], ['Model', row.model], ['Tier', row.tier],
      row.fallback_from && ['Asked', `${row.fallback_from}, which did not answer`],
      ['Result', result(row)], ['Took', seconds(row.seconds)], ['First token', seconds(row.ttft_s) || 'no stream'],
      ['Prompt', `${count(row.prompt_tokens)} tokens`], ['Of it reused', reused],
      row.why_read_again && ['Prefix', row.why_read_again],
      row.reread_tokens > 0 && ['Read again', `${count(row.reread_tokens)} tokens` +
        (row.reread_s === null ? '' : `, ${seconds(row.reread_s)}`), 'warn'],
      ['Answer', `${count(row.completion_tokens)} tokens`],
      row.generation_tps !== null && ['Speed', `${figure(row.generation_tps)} tokens/s`],
      ['Body', bytes(row.received_bytes)], ['Sent', bytes(row.sent_bytes)],
      ['Alone', row.was_alone ? 'yes: its speed is the model’s own' : 'no: others ran, it waited or it failed'],
    ])));
}
