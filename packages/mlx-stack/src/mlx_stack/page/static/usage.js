// Usage: who used what, and how fast it was next to what was predicted.

import {get} from './api.js';
import {lineChart} from './charts.js';
import {choice, clock, count, figure, h, refill, seconds, section, table} from './dom.js';
import {attempt} from './main.js';

let asked = {since: '7d', by: 'model'}, parts = null;

export function open(main) {
  parts = {rows: h('div'), speed: h('div', {class: 'grid'})};
  const set = (name) => (value) => { asked = {...asked, [name]: value}; load(); };
  refill(main, section('Usage', null, h('div', {class: 'bar'},
    choice('Since', [['12h', '12 hours'], ['24h', 'a day'], ['7d', '7 days'], ['30d', '30 days'], ['365d', 'a year']], asked.since, set('since')),
    choice('By', [['model', 'model'], ['key', 'key'], ['day', 'day']], asked.by, set('by'))), parts.rows),
  parts.speed);
  load();
}

export function close() {
  parts = null;
}

async function load() {
  const turn = asked;
  const report = await attempt(() => get('usage', turn));
  if (!report || !parts || turn !== asked) return;  // answers overtake each other
  const expected = report.predictions || {};
  const isByModel = asked.by === 'model' && Object.keys(expected).length;
  const rows = report.rows.length > 1 ? [...report.rows, {...report.totals, [asked.by]: 'in all'}] : report.rows;
  const shares = Object.entries(report.availability).map(([name, share]) =>
    `${name} ${share === null ? '?' : `${(share * 100).toFixed(2)} %`}`);
  refill(parts.rows, table([
    [{model: 'Model', key: 'Key', day: 'Day'}[asked.by], (row) => h('span', {class: 'name'}, row[asked.by])],
    ['Requests', (row) => count(row.requests), {num: true}],
    ['Failed', (row) => h('span', {class: row.failed ? 'bad' : 'dim'}, row.failed), {num: true}],
    ['Read', (row) => count(row.prompt_tokens), {num: true, class: 'narrow-off'}],
    ['Reused', (row) => count(row.cached_tokens), {num: true, class: 'narrow-off'}],
    ['Written', (row) => count(row.completion_tokens), {num: true, class: 'narrow-off'}],
    ['First token', (row) => seconds(row.ttft_s.p50), {num: true}],
    ['p95', (row) => seconds(row.ttft_s.p95), {num: true, class: 'narrow-off'}],
    isByModel && ['expected', (row) => seconds(expected[row.model]?.ttft_s), {num: true, class: 'dim narrow-off'}],
    ['tok/s', (row) => figure(row.generation_tps.p50), {num: true}],
    isByModel && ['expected', (row) => figure(expected[row.model]?.generation_tps), {num: true, class: 'dim narrow-off'}],
  ].filter(Boolean), rows, {empty: 'No requests in this period.', label: 'Usage'}),
  shares.length ? h('p', {class: 'small dim'}, `Available: ${shares.join(', ')}.`) : null,
  report.read_again.length ? [h('h2', null, 'Prompts that had to be read again'), table([
    ['Why', (row) => row.words, {class: 'wrap'}],
    ['Turns', (row) => `${count(row.requests)} of ${count(row.turns)}`, {num: true}],
    ['Tokens', (row) => count(row.tokens), {num: true}],
    ['Reading', (row) => (row.seconds_basis === 'predicted' ? '~' : '') + seconds(row.seconds), {num: true}],
  ], report.read_again, {label: 'Read again'})] : null);
  await showSpeed(report, expected, turn);
}

// The newest requests of each model, next to what was predicted for it.
async function showSpeed(report, expected, turn) {
  const models = turn.by === 'model' ? report.rows.map((row) => row.model).slice(0, 6) : [];
  const charts = [], width = parts.speed.clientWidth / (matchMedia('(max-width: 900px)').matches ? 1 : 2) - 40;
  for (const model of models) {
    const found = await attempt(() => get('requests', {model, since: turn.since, failed: 'no', limit: 300}));
    if (!found || !parts || turn !== asked) return;
    const known = found.requests.filter((row) => row.generation_tps !== null).reverse();
    if (known.length < 2) continue;
    const points = (name) => known.filter((row) => row[name] !== null).map((row) => [Date.parse(row.at), row[name]]);
    const times = {from: Date.parse(known[0].at), to: Date.parse(known.at(-1).at), text: clock, dots: true, width};
    const mark = (value) => (value ? [{name: 'predicted', y: value}] : []);
    charts.push(section(`${model}: tokens a second`, 'w6', lineChart(points('generation_tps'),
      {...times, label: `Tokens a second of ${model} over time`, marks: mark(expected[model]?.generation_tps)})),
    section(`${model}: first token after`, 'w6', lineChart(points('ttft_s'),
      {...times, unit: ' s', label: `Time to the first token of ${model} over time`, marks: mark(expected[model]?.ttft_s)})));
  }
  refill(parts.speed, charts);
}
