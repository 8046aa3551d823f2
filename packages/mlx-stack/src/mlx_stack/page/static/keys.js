// Keys: one for each client.

import {get, isAdmin, post, remove} from './api.js';
import {ask, clock, h, refill, section, table} from './dom.js';
import {attempt} from './main.js';

let body = null;

export function open(main) {
  body = h('div');
  const name = h('input', {name: 'name', required: true, placeholder: 'laptop', 'aria-label': 'Name', pattern: '[A-Za-z0-9][A-Za-z0-9._\\-]{0,63}'});
  const tiers = h('input', {name: 'tiers', placeholder: 'all tiers', 'aria-label': 'Tiers'});
  const priority = h('select', {'aria-label': 'Priority'}, ['interactive', 'agent', 'batch'].map((each) => h('option', null, each)));
  const shown = h('p', {role: 'status'});
  const form = h('form', {class: 'bar', onsubmit: async (event) => {
    event.preventDefault();
    const made = await attempt(() => post('keys', {name: name.value, tiers: tiers.value, priority: priority.value}));
    if (!made) return;
    name.value = tiers.value = '';
    refill(shown, `The key of ${made.name}, shown this once: `, h('code', {class: 'wrap'}, made.key));
    load();
  }}, name, tiers, priority, h('button', {class: 'main'}, 'Add a key'));
  refill(main, section('Keys', null, h('p', {class: 'dim'}, 'A key for each client says who used what. The admin’s own key is in `mlx-stack env`.'),
    isAdmin() ? [form, shown] : h('p', null, 'This key can see everything but not change anything.'), body));
  load();
}

export function close() {
  body = null;
}

async function load() {
  const listed = await attempt(() => get('keys'));
  if (!listed || !body) return;
  refill(body, table([
    ['Client', (row) => h('span', {class: 'name'}, row.name)],
    ['Tiers', (row) => (row.tiers === null ? 'all' : row.tiers.join(', ') || 'none')],
    ['Priority', (row) => row.priority],
    ['At once', (row) => row.max_in_flight ?? '', {num: true, class: 'narrow-off'}],
    ['Created', (row) => row.created_at && clock(row.created_at), {class: 'narrow-off'}],
    ['Last used', (row) => row.last_used_at && clock(row.last_used_at)],
    ['', (row) => isAdmin() && h('button', {type: 'button', 'aria-label': `Revoke ${row.name}`, onclick: async () => {
      if (await ask('Revoke this key?', `What uses the key of ${row.name} is refused from now on.`, [], 'Revoke')) {
        await attempt(() => remove(`keys/${encodeURIComponent(row.name)}`));
        load();
      }
    }}, 'Revoke'), {class: 'act'}],
  ], listed.keys, {empty: 'No client has its own key.', label: 'Keys'}));
}
