// The frame: signing in, the views, what is being done, and what went wrong.

import * as api from './api.js';
import {bytes, h, refill, seconds} from './dom.js';
import * as now from './now.js';
import * as requests from './requests.js';
import * as models from './models.js';
import * as trying from './try.js';
import * as logs from './logs.js';
import * as usage from './usage.js';
import * as keys from './keys.js';
import * as doctor from './doctor.js';

const VIEWS = {
  now: ['Now', now], requests: ['Requests', requests], models: ['Models', models], try: ['Try', trying],
  logs: ['Logs', logs], usage: ['Usage', usage], keys: ['Keys', keys], doctor: ['Doctor', doctor],
};
const VERBS = {start: 'Starting', stop: 'Stopping', restart: 'Restarting', pull: 'Pulling', remove: 'Removing',
  'add-tier': 'Adding a tier for', 'remove-tier': 'Removing the tier', fix: 'Fixing what can be fixed'};
const main = document.getElementById('main');
const seen = new Set();
let view = null, stopListening = null;

start();

async function start() {
  api.onSignedOut(() => showSignIn());
  api.onLink((isUp) => {
    const link = document.getElementById('link');
    link.textContent = isUp ? `${api.store.session?.client ?? ''}` : 'offline: waiting for the gateway';
    link.className = isUp ? '' : 'bad';
  });
  document.getElementById('leave').addEventListener('click', async () => {
    await api.remove('session').catch(() => {});
    showSignIn();
  });
  window.addEventListener('hashchange', route);
  api.listen((topic) => { if (topic === 'actions') showActions(); });
  try {
    await openSession();
  } catch (error) {
    if (error.status === 401) showSignIn(error.fromLink ? error.message : '');
    else refill(main, h('section', {class: 'sign-in'}, h('h1', null, error.message), h('p', null, error.hint)));
  }
}

// With a link's token, which is used up by this, or with the cookie of before.
async function openSession() {
  const token = /^#token=([\w-]+)$/.exec(location.hash)?.[1];
  if (token) {
    history.replaceState(null, '', location.pathname);
    try {
      return enter(await api.post('session', {token}));
    } catch (error) {
      error.fromLink = true;
      const known = await api.get('session').catch(() => null);
      if (!known) throw error;
      return enter(known);
    }
  }
  return enter(await api.get('session'));
}

function enter(session) {
  api.store.session = session;
  document.getElementById('leave').hidden = false;
  document.getElementById('brand').title = `mlx-stack ${session.version}`;
  api.connect();
  route();
}

function showSignIn(problem = '') {
  api.disconnect();
  close();
  document.getElementById('leave').hidden = true;
  refill(document.getElementById('nav'));
  refill(document.getElementById('actions'));
  const field = h('input', {type: 'password', name: 'key', autocomplete: 'current-password', required: true,
    'aria-label': 'Key'});
  const said = h('p', {class: 'bad', role: 'alert'}, problem);
  const form = h('form', {onsubmit: async (event) => {
    event.preventDefault();
    try {
      enter(await api.post('session', {key: field.value}));
    } catch (error) {
      said.textContent = `${error.message} ${error.hint || ''}`;
      field.select();
    }
  }}, h('h1', null, 'Sign in'),
  h('p', null, 'Run ', h('code', null, 'mlx-stack dashboard'), ' on this machine, or give a key:'),
  field, said, h('button', {class: 'main'}, 'Sign in'));
  refill(main, h('section', {class: 'sign-in', 'aria-label': 'Sign in'}, form));
  field.focus();
}

function close() {
  stopListening?.();
  stopListening = null;
  view?.close?.();
  view = null;
}

function route() {
  if (!api.store.session) return;
  const [name, ...rest] = location.hash.slice(1).split('/').map(decodeURIComponent);
  const chosen = VIEWS[name] ? name : 'now';
  close();
  document.title = `${VIEWS[chosen][0]} · mlx-stack`;
  refill(document.getElementById('nav'), Object.entries(VIEWS).map(([key, [title]]) =>
    h('a', {href: `#${key}`, 'aria-current': key === chosen ? 'page' : null}, title)));
  view = VIEWS[chosen][1];
  view.open(main, rest);
  stopListening = api.listen((topic) => view?.update?.(topic));
}

export function report(error) {
  const notice = document.getElementById('notice');
  const words = [error.message, error.hint].filter(Boolean).join(' ');
  refill(notice, h('div', {class: 'notice'}, h('p', null, words),
    h('button', {type: 'button', onclick: () => refill(notice)}, 'Dismiss')));
}

// Does something and says so where it fails.
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    report(error);
    return null;
  }
}

export const act = (values) => attempt(async () => {
  const started = await api.post('actions', values);
  seen.add(started.id);
  return started;
});

function showActions() {
  const all = api.store.actions.actions;
  const fresh = all.filter((each) => each.state === 'running' || seen.has(each.id));
  for (const each of all) if (each.state === 'running') seen.add(each.id);
  refill(document.getElementById('actions'), fresh.map(job));
}

function job(action) {
  const what = `${VERBS[action.do] || action.do} ${action.about || (action.do === 'fix' ? '' : 'everything')}`;
  const isRunning = action.state === 'running';
  const p = action.progress;
  const [done, total] = p?.event === 'converting' ? [p.written_bytes, p.expected_bytes]
    : [p?.present_bytes, p?.total_bytes];
  const words = isRunning ? '' : action.state === 'failed'
    ? `failed: ${action.error.message} ${action.error.hint || ''}` : action.state;
  const forget = () => { seen.delete(action.id); showActions(); };
  return h('div', {class: 'job'},
    h('span', {class: 'grow'}, what, ' ', h('span', {class: action.state === 'failed' ? 'bad' : 'dim'}, words)),
    isRunning && total ? [h('progress', {max: total, value: done, 'aria-label': what}),
      h('span', {class: 'small'}, `${bytes(done)} of ${bytes(total)}`,
        p.rate_bytes_s ? `, ${bytes(p.rate_bytes_s)}/s, ${seconds(p.remaining_s)} left` : '')]
      : isRunning && h('span', {class: 'small dim'}, 'running…'),
    isRunning ? (action.do === 'pull' && api.isAdmin() && h('button', {type: 'button', 'data-key': `cancel-${action.id}`,
      onclick: () => attempt(() => api.remove(`actions/${action.id}`))}, 'Cancel'))
      : h('button', {type: 'button', class: 'quiet', 'data-key': `forget-${action.id}`, onclick: forget}, 'Dismiss'));
}
