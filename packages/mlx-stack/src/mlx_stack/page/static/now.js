// Now: the machine, the services, what runs, what was done.

import {get, store, isAdmin} from './api.js';
import {lineChart, legend, stackedBar} from './charts.js';
import {ask, bytes, clock, facts, figure, h, refill, seconds, section, table} from './dom.js';
import {act, attempt} from './main.js';

const WINDOW_MS = 180000, MOST_SAMPLES = 400, DRAWN_EVERY_MS = 2000;
const SIGNS = {healthy: ['●', 'good'], degraded: ['◐', 'warn'], down: ['✗', 'bad'], crashed: ['✗', 'bad'],
  stopped: ['○', 'dim']};
const PHASES = {starting: 'its engine is starting', queued: 'waits for its turn', reading: 'reads the prompt',
  writing: 'writes'};
const samples = [];
let known = new Map(), knownAt = 0, drawnAt = 0, parts = null, predicted = {}, predictedOf = '';

export function open(main) {
  parts = Object.fromEntries(['machine', 'services', 'running', 'speed', 'recent', 'events'].map((name) =>
    [name, h('div')]));
  refill(main, h('div', {class: 'grid'},
    section('Machine', 'w12', parts.machine),
    section('Services', 'w12', parts.services),
    section('Running requests', 'w8', parts.running),
    section('Tokens per second, last three minutes', 'w4', parts.speed),
    section('Last requests', 'w8', parts.recent),
    section('Last events', 'w4', parts.events)));
  for (const topic of ['machine', 'status', 'requests', 'recent', 'events']) update(topic);
  drawSpeed();
}

export function update(topic) {
  if (topic === 'status') predict();
  if (topic === 'machine' || topic === 'status') showMachine();
  if (['status', 'requests', 'actions'].includes(topic)) showServices();
  if (topic === 'requests') { measure(); showRunning(); }
  if (topic === 'recent') showRecent();
  if (topic === 'events') showEvents();
}

export function close() {
  parts = null;
}

// What is to be expected of each tier, asked again whenever the tiers or their models are others.
async function predict() {
  const of = (store.status?.services || []).map((row) => `${row.name} ${row.model}`).join('\n');
  if (of === predictedOf) return;
  predictedOf = of;
  predicted = (await attempt(() => get('predictions')))?.tiers || {};
  if (parts) { showServices(); showRunning(); showRecent(); }
}

const speedOf = (tier, figure) => predicted[tier]?.[figure]?.value ?? null;

// Seconds until the first token of a prompt of which so many tokens are read.
function expected(tier, tokens, queued) {
  const tps = speedOf(tier, 'prompt_tps');
  return tps && tokens !== null && tokens !== undefined ? (queued || 0) + tokens / tps : null;
}

function showMachine() {
  const machine = store.machine, status = store.status;
  if (!machine) return;
  const hardware = status?.hardware || {};
  const tiers = (status?.services || []).filter((each) => each.memory_bytes);
  const total = machine.memory_bytes, limit = hardware.gpu_memory_limit_bytes;
  const ours = tiers.reduce((sum, each) => sum + each.memory_bytes, 0);
  const others = Math.max(total - machine.available_bytes - ours, 0);
  const bars = [...tiers.map((each) => ({name: `${each.name} ${bytes(each.memory_bytes)}`, value: each.memory_bytes})),
    {name: `everything else ${bytes(others)}`, value: others, kind: 'c-4'}];
  const pressure = {normal: 'good', warning: 'warn', critical: 'bad'}[machine.pressure];
  refill(parts.machine,
    stackedBar(bars, total, limit ? [{name: `GPU limit ${bytes(limit)}`, value: limit}] : [],
      `Memory: ${bytes(ours)} of ours, ${bytes(machine.available_bytes)} of ${bytes(total)} available`),
    legend(bars),
    facts([
      hardware.chip && ['Chip', hardware.chip],
      ['Memory', `${bytes(machine.available_bytes)} of ${bytes(total)} available`],
      limit && ['GPU limit', bytes(limit)],
      ['Pressure', machine.pressure, pressure],
      ['Swap', bytes(machine.swap_used_bytes)],
      machine.on_battery !== null && ['Power', machine.on_battery ? `battery, ${machine.battery_percent} %` : 'plugged in'],
      status?.keep_awake?.supported && ['Sleep', status.keep_awake.held ? 'kept awake' : 'as the machine is set'],
      status?.gateway_url && ['Endpoint', status.gateway_url],
    ]));
}

function showServices() {
  const status = store.status;
  if (!status) return;
  if (status.error) {
    refill(parts.services, h('p', null, status.error.message, ' ', status.error.hint));
    return;
  }
  const lines = store.requests?.lines || {};
  const rate = (name) => (store.requests?.running || []).filter((each) => each.tier === name)
    .reduce((sum, each) => sum + (speed(each) || 0), 0);
  const isEngine = (row) => ['engine', 'rank', 'replica'].includes(row.kind);
  refill(parts.services,
    table([
      ['Service', (row) => [h('span', {class: 'name'}, row.name),
        row.role && row.role !== 'chat' && [' ', h('span', {class: 'dim small'}, row.role)]]],
      ['State', state],
      ['Model', (row) => row.model, {class: 'wrap narrow-off'}],
      ['Running', (row) => isEngine(row) && (lines[row.name]?.running ?? ''), {num: true}],
      ['Waiting', (row) => isEngine(row) && (lines[row.name]?.waiting || ''), {num: true, class: 'narrow-off'}],
      ['tok/s', (row) => isEngine(row) && figure(rate(row.name) || null), {num: true}],
      ['expected', (row) => isEngine(row) && figure(speedOf(row.name, 'generation_tps')), {num: true, class: 'dim narrow-off'}],
      ['Memory', (row) => row.memory_bytes && bytes(row.memory_bytes), {num: true, class: 'narrow-off'}],
      ['Up', (row) => row.uptime_s !== null && seconds(row.uptime_s), {num: true, class: 'narrow-off'}],
      ['', buttons, {class: 'act'}],
    ], status.services, {label: 'Services'}),
    status.services.filter((row) => row.loading_s === null && (row.reason || row.last_error)).map((row) =>
      h('p', {class: 'small wrap'}, h('span', {class: 'bad'}, `${row.name}: `), row.reason || row.last_error)),
    status.services.filter((row) => row.measured).map((row) =>
      h('p', {class: 'small dim wrap'},
        `${row.name}: ${figure(row.measured.value)} ${row.measured.unit} with ${row.measured.load}, measured ${row.measured.at}`)),
    status.services.filter((row) => row.agent_check).map((row) =>
      h('p', {class: 'small dim wrap'}, `${row.name}: ${row.agent_check}`)),
    status.changed?.length ? h('p', {class: 'warn small'},
      `The stack file has changed for ${status.changed.join(', ')}: a start applies it.`) : null,
    isAdmin() && h('div', {class: 'bar after'},
      button('start', '', 'Start everything'), button('restart', '', 'Restart everything'),
      button('stop', '', 'Stop everything')));
}

function state(row) {
  if (row.waits_for.length) {
    return h('span', {class: 'warn', title: `${row.waits_for.join(', ')} must make room first`}, '◌\u00a0waiting');
  }
  if (row.loading_s !== null) {
    const left = row.loading_left_s === null ? '' : `, ${seconds(row.loading_left_s)} left`;
    const done = row.loading_progress === null ? '' : ` ${Math.floor(row.loading_progress * 100)} %`;
    return h('span', {class: 'warn'}, `◌\u00a0loading${done}${left}`);
  }
  const [sign, kind] = SIGNS[row.state] || ['?', 'dim'];
  return h('span', {class: kind, title: row.reason || row.last_error || null}, `${sign}\u00a0${row.state}`,
    row.flapping ? ', flapping' : '');
}

function buttons(row) {
  if (row.kind !== 'engine') return null;
  return [h('a', {class: 'button narrow-off', href: `#try/${encodeURIComponent(row.name)}`, 'data-key': `try-${row.name}`,
    'aria-label': `Try ${row.name}`}, 'Try'), isAdmin() && (row.state === 'stopped' || row.state === 'crashed'
    ? button('start', row.name, 'Start') : [button('restart', row.name, 'Restart'), button('stop', row.name, 'Stop')])];
}

function button(doing, tier, text) {
  const isBusy = (store.actions?.actions || []).some((each) => each.state === 'running' &&
    ['start', 'stop', 'restart'].includes(each.do));
  return h('button', {type: 'button', disabled: isBusy, 'data-key': `${doing}-${tier}`,
    'aria-label': tier ? `${text} ${tier}` : null, onclick: async () => {
      const stopsAll = doing === 'stop' && !tier;
      if (stopsAll && !(await ask('Stop everything?', 'The gateway stops too, and this page with it. ' +
        '`mlx-stack up` in a terminal starts it again.', [], 'Stop everything'))) return;
      await act(tier ? {do: doing, tier} : {do: doing});
    }}, text);
}

// Events of a stream are about one a token; the exact figure comes with the end of the request.
function speed(each) {
  return each.writing_s > 0.2 && each.events > 1 ? (each.events - 1) / each.writing_s : null;
}

function measure() {
  const at = Date.now(), before = known;
  known = new Map((store.requests?.running || []).map((each) => [each.id, each.events]));
  let events = 0;
  for (const [id, count] of known) events += Math.max(count - (before.get(id) ?? count), 0);
  const over = (at - knownAt) / 1000;
  if (over > 0.1 && over < 5) samples.push([at, events / over]);
  else samples.push([at, 0]);
  knownAt = at;
  while (samples.length > MOST_SAMPLES || samples[0]?.[0] < at - WINDOW_MS) samples.shift();
  if (at - drawnAt > DRAWN_EVERY_MS || !known.size || samples.length === 2) drawSpeed();
}

function drawSpeed() {
  const to = drawnAt = Date.now();
  if (!parts) return;
  const shown = samples.filter(([at]) => at >= to - WINDOW_MS);
  refill(parts.speed, shown.length > 1
    ? lineChart(shown, {from: to - WINDOW_MS, to, width: parts.speed.clientWidth, label: 'Tokens per second over the last three minutes',
      text: (at) => clock(at)})
    : h('p', {class: 'empty'}, 'No tokens yet.'));
}

function showRunning() {
  if (!parts) return;
  refill(parts.running, table([
    ['Who', (row) => [h('span', {class: 'name'}, row.key), ' ', h('span', {class: 'dim narrow-off'}, row.program)]],
    ['Tier', (row) => row.tier + (row.tier !== row.model ? ` (asked ${row.model})` : '')],
    ['Phase', (row) => [PHASES[row.phase] || row.phase, why(row), row.phase === 'reading' && progress(row)]],
    ['Since', (row) => seconds(row.seconds), {num: true}],
    ['First token', (row) => seconds(row.ttft_s), {num: true, class: 'narrow-off'}],
    ['expected', (row) => seconds(expected(row.tier, row.prompt_tokens, row.queue_s)), {num: true, class: 'dim narrow-off'}],
    ['~tok/s', (row) => figure(speed(row)), {num: true}],
  ], store.requests?.running || [], {empty: 'No request is running.', label: 'Running requests'}));
}

// What a request waits for, where that is known.
function why(row) {
  const line = store.requests.lines[row.tier];
  const others = (store.status?.services || []).find((each) => each.name === row.tier)?.waits_for || [];
  if (row.phase === 'queued' && line) return `: ${line.running} at work, ${line.waiting} waiting`;
  return row.phase === 'starting' && others.length ? `, once ${others.join(', ')} has made room` : null;
}

// How far the prompt has been read: as the engine says it, else as it was predicted.
function progress(row) {
  const all = expected(row.tier, row.prompt_tokens, 0);
  const share = row.progress ?? (all ? Math.min((row.seconds - row.queue_s) / all, 0.99) : null);
  if (share === null) return null;
  const percent = `${Math.round(share * 100)} %`;
  return [' ', h('progress', {max: 1, value: share, 'aria-label': 'Prompt read'}),
    row.progress === null ? ` about ${percent}, predicted` : ` ${percent}`];
}

function showRecent() {
  refill(parts.recent, store.recent?.error ? h('p', {class: 'bad'}, store.recent.error.message) : table([
    ['When', (row) => h('a', {href: `#requests/${row.id}`, 'data-key': `r${row.id}`}, clock(row.at))],
    ['Who', (row) => [row.key, ' ', h('span', {class: 'dim narrow-off'}, row.program)]],
    ['Tier', (row) => row.tier],
    ['Result', (row) => h('span', {class: row.status === 200 ? 'good' : row.status === 499 ? 'dim' : 'bad'},
      row.status === 499 ? 'left' : row.status)],
    ['Took', (row) => seconds(row.seconds), {num: true}],
    ['First token', (row) => seconds(row.ttft_s), {num: true, class: 'narrow-off'}],
    ['expected', (row) => row.ttft_s !== null && row.prompt_tokens !== null &&
      seconds(expected(row.tier, row.prompt_tokens - (row.cached_tokens || 0), row.queue_s)), {num: true, class: 'dim narrow-off'}],
    ['tok/s', (row) => figure(row.generation_tps), {num: true}],
    ['expected', (row) => row.generation_tps !== null && figure(speedOf(row.tier, 'generation_tps')), {num: true, class: 'dim narrow-off'}],
  ], (store.recent?.requests || []).slice(0, 12), {empty: 'No requests yet.', label: 'Last requests'}));
}

function showEvents() {
  refill(parts.events, table([
    ['When', (row) => clock(row.at)],
    ['What', (row) => [row.what, ' ', h('span', {class: 'dim'}, row.service)]],
    ['', (row) => h('span', {class: 'dim small'}, row.detail), {class: 'wrap'}],
  ], (store.events?.events || []).slice(0, 14), {label: 'Last events'}));
}
