// Trying a model: which models serve which role, and the form that asks one of them.

import {store} from './api.js';
import {choice, h, refill, seconds, section} from './dom.js';

export const CHATTING = [null, 'chat', 'vision'];

// The names of all models with one of these roles, as the gateway knows them.
export function namesWith(roles) {
  const lines = Object.entries(store.requests?.lines || {});
  const known = lines.length ? lines : (store.status?.services || [])
    .filter((each) => each.kind === 'engine').map((each) => [each.name, each]);
  return known.filter(([, each]) => roles.includes(each.role ?? null)).map(([name]) => name);
}

// A form that asks one model with a role, and shows what comes back; `run` gets the model and a
// signal, and gives what the result shows.
export function trial({role, title, fields, verb, run}) {
  const result = h('div', {class: 'result'}), said = h('span', {class: 'small dim', role: 'status'});
  const stop = h('button', {type: 'button', hidden: true, onclick: () => control?.abort()}, 'Stop');
  const models = h('div', {class: 'bar'});
  const form = h('form', {class: 'trial', onsubmit: (event) => { event.preventDefault(); ask(); }},
    fields, h('div', {class: 'bar'}, h('button', {class: 'main'}, verb), stop, said));
  let model = '', names = [], control = null;

  function showModels() {
    names = namesWith([role]);
    if (!names.includes(model)) model = names[0] || model;
    refill(models, choice('Model', names, model, (value) => { model = value; }, `model-${role}`));
  }

  async function ask() {
    control?.abort();
    const own = control = new AbortController(), began = performance.now();
    const tell = (words) => { if (own === control) said.textContent = words; };
    const tick = setInterval(() => tell(seconds((performance.now() - began) / 1000)), 500);
    stop.hidden = false;
    tell('');
    try {
      const found = await run(model, own.signal);
      if (own === control) refill(result, found);
    } catch (error) {
      if (own === control && error.name !== 'AbortError') {
        refill(result, h('p', {class: 'bad', role: 'alert'}, [error.message, error.hint].filter(Boolean).join(' ')));
      }
    }
    clearInterval(tick);
    if (own !== control) return;
    tell(own.signal.aborted ? 'stopped' : '');
    stop.hidden = true;
    control = null;
  }

  return {
    open(place, name) {
      if (name) model = name;
      refill(place, section(title, null, models, form, result));
      showModels();
    },
    update() {
      if (namesWith([role]).join() !== names.join()) showModels();
    },
    close() {
      control?.abort();
    },
  };
}
