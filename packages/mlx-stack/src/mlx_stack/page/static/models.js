// Models: on this disk, in the catalog with their fit, on the Hub.

import {get, isAdmin, store} from './api.js';
import {ask, bytes, count, figure, h, refill, section, table} from './dom.js';
import {act, attempt} from './main.js';

let parts = null, disk = null, catalog = null, words = '', known = '';

export function open(main) {
  parts = {disk: h('div'), catalog: h('div'), hub: h('div')};
  const find = h('input', {type: 'search', value: words, placeholder: 'name, family or tag', class: 'grow',
    'aria-label': 'Filter the catalog', oninput: (event) => { words = event.target.value.toLowerCase(); showCatalog(); }});
  const query = h('input', {type: 'search', placeholder: 'search the Hub, or owner/name', class: 'grow', 'aria-label': 'Search the Hub'});
  refill(main, section('On this disk', null, parts.disk),
    section('Catalog, on this machine', null, h('div', {class: 'bar'}, find), parts.catalog),
    section('Hub', null, h('form', {class: 'bar', onsubmit: (event) => { event.preventDefault(); search(query.value); }},
      query, h('button', null, 'Search')), parts.hub));
  loadDisk();
  loadCatalog();
}

export function update(topic) {
  if (topic !== 'actions') return;
  const states = store.actions.actions.map((each) => each.id + each.state).join();  // one may be over before it is seen to run
  if (states !== known) loadDisk();
  known = states;
}

export function close() {
  parts = null;
}

async function loadDisk() {
  disk = await attempt(() => get('models'));
  if (!disk || !parts) return;
  refill(parts.disk, table([
    ['Model', (row) => h('span', {class: 'name'}, row.id), {class: 'wrap'}],
    ['Quant', (row) => row.quant || '?', {class: 'narrow-off'}],
    ['Size', (row) => bytes(row.size_bytes), {num: true}],
    ['Integrity', (row) => h('span', {class: {ok: 'good', incomplete: 'warn', damaged: 'bad'}[row.integrity]}, row.integrity)],
    ['Tiers', (row) => row.tiers.join(', '), {class: 'narrow-off'}],
    ['', diskButtons, {class: 'act'}],
  ], disk.models, {empty: `No models in ${disk.model_dir} yet.`, label: 'Models on this disk'}));
  if (catalog) showCatalog();
}

function diskButtons(row) {
  const buttons = [];
  if (row.tiers.length) buttons.push(h('a', {class: 'button', href: `#try/${encodeURIComponent(row.tiers[0])}`}, 'Try'));
  if (isAdmin()) {
    if (row.integrity !== 'ok') buttons.push(pullButton(row.id, 'Continue'));
    buttons.push(h('button', {type: 'button', 'data-key': `tier-${row.id}`, 'aria-label': `Serve ${row.id}`, onclick: async () => {
      const given = await ask('Serve it as a tier', `${row.id} becomes a tier of the stack. Start it afterwards under Now.`,
        [{name: 'tier', label: 'Tier name (may stay empty)', placeholder: 'coder'}], 'Add the tier');
      if (given) await act({do: 'add-tier', model: row.id, ...(given.tier ? {tier: given.tier} : {})});
    }}, 'Serve'));
    for (const tier of row.tiers) {
      buttons.push(h('button', {type: 'button', 'data-key': `untier-${tier}`, onclick: async () => {
        if (await ask('Remove the tier?', `${tier} is taken out of the stack. The model stays on the disk.`, [], 'Remove the tier')) {
          await act({do: 'remove-tier', tier});
        }
      }}, `Remove tier ${tier}`));
    }
    buttons.push(h('button', {type: 'button', 'data-key': `remove-${row.id}`, 'aria-label': `Remove ${row.id}`, onclick: async () => {
      if (await ask('Remove this model?', `${row.id}: ${bytes(row.size_bytes)} are freed.`, [], 'Remove')) {
        await act({do: 'remove', model: row.id});
      }
    }}, 'Remove'));
  }
  return buttons;
}

function pullButton(model, text = 'Pull') {
  return h('button', {type: 'button', 'data-key': `pull-${model}`, 'aria-label': `${text} ${model}`,
    onclick: () => act({do: 'pull', model})}, text);
}

async function loadCatalog() {
  refill(parts.catalog, h('p', {class: 'dim'}, 'Estimating…'));
  catalog = await attempt(() => get('models/catalog'));
  if (parts) showCatalog();
}

function showCatalog() {
  if (!catalog) return;
  const here = new Set((disk?.models || []).map((each) => each.id));
  const rows = catalog.models.filter((each) =>
    [each.id, each.name, each.family, ...each.tags, ...each.aliases].join(' ').toLowerCase().includes(words));
  refill(parts.catalog, table([
    ['Model', (row) => h('span', {class: 'name'}, row.id)],
    ['Params', (row) => `${figure(row.params_b)}B${row.active_params_b && row.active_params_b !== row.params_b ? ` / ${figure(row.active_params_b)}B` : ''}`, {num: true, class: 'narrow-off'}],
    ['Memory', (row) => bytes(row.estimate.memory.total_bytes), {num: true}],
    ['Fits', fits],
    ['tok/s', (row) => speed(row.estimate.generation_tps), {num: true}],
    ['Prompt tok/s', (row) => speed(row.estimate.prompt_tps), {num: true, class: 'narrow-off'}],
    ['Can', (row) => [row.capabilities.tool_calling && 'tools', row.capabilities.thinking && 'think', row.capabilities.vision && 'see'].filter(Boolean).join(' '), {class: 'narrow-off'}],
    ['Licence', (row) => row.license, {class: 'narrow-off'}],
    ['', (row) => (here.has(row.id) ? h('span', {class: 'dim'}, 'on this disk') : isAdmin() && pullButton(row.id)), {class: 'act'}],
  ], rows, {empty: 'The catalog has no such model.', label: 'Catalog'}),
  h('p', {class: 'small dim'}, `${rows.filter((each) => each.estimate.fits).length} of ${rows.length} fit. ~ is an estimate; the others were measured or published. Memory is for 8,192 tokens of context.`));
}

function fits(row) {
  if (row.unservable_because) return h('span', {class: 'dim', title: row.unservable_because}, 'no engine');
  const word = {true: ['yes', 'good'], false: ['no', 'bad'], null: ['?', 'dim']}[row.estimate.fits];
  return h('span', {class: word[1]}, word[0]);
}

function speed(value) {
  if (!value) return '?';
  return h('span', {title: `${figure(value.low)} to ${figure(value.high)} (${value.basis})`},
    `${value.basis === 'estimate' ? '~' : ''}${figure(value.value)}`);
}

async function search(query) {
  refill(parts.hub, h('p', {class: 'dim'}, 'Asking the Hub…'));
  const found = await attempt(() => get('models/hub', {query}));
  if (!parts) return;
  refill(parts.hub, found && table([
    ['Repository', (row) => h('span', {class: 'name'}, row.repo), {class: 'wrap'}],
    ['Weights', (row) => bytes(row.size_bytes), {num: true}],
    ['Downloads', (row) => count(row.downloads), {num: true, class: 'narrow-off'}],
    ['Fits', (row) => (row.estimate ? fits(row) : '?')],
    ['tok/s', (row) => (row.estimate ? speed(row.estimate.generation_tps) : '?'), {num: true}],
    ['', (row) => isAdmin() && pullButton(row.repo), {class: 'act'}],
  ], found.models, {empty: 'The Hub has no such MLX model.', label: 'Models on the Hub'}));
}
