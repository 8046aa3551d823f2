// Doctor: what is wrong, what to do about it, and whether the machine would come back.

import {get, isAdmin, store} from './api.js';
import {h, refill, section} from './dom.js';
import {act, attempt} from './main.js';

const SIGNS = {ok: ['✓', 'good'], info: ['i', 'dim'], warning: ['!', 'warn'], problem: ['✗', 'bad']};
const ORDER = ['problem', 'warning', 'info', 'ok'];
let parts = null, known = null;

export function open(main) {
  parts = {findings: h('div'), back: h('div')};
  refill(main,
    section('Would it come back after a restart?', null, parts.back),
    section('Findings', null, h('div', {class: 'bar'},
      h('button', {type: 'button', onclick: load}, 'Look again')), parts.findings));
  load();
  loadBack();
}

export function update(topic) {
  if (topic !== 'actions') return;
  const done = store.actions.actions.filter((each) => each.do === 'fix' && each.state !== 'running').length;
  if (known !== null && done > known) load();
  known = done;
}

export function close() {
  parts = null;
}

async function load() {
  refill(parts.findings, h('p', {class: 'dim'}, 'Looking…'));
  const found = await attempt(() => get('doctor'));
  if (!parts) return;
  if (!found) return void refill(parts.findings, h('p', {class: 'bad'}, 'The check failed.'));
  const sorted = [...found.findings].sort((a, b) => ORDER.indexOf(a.severity) - ORDER.indexOf(b.severity));
  const canFix = sorted.some((each) => each.can_fix);
  refill(parts.findings,
    h('p', null, `${many(found.counts.problem, 'problem')}, ${many(found.counts.warning, 'warning')}.`, ' ',
      canFix && isAdmin() && h('button', {type: 'button', onclick: () => act({do: 'fix'})}, 'Fix what can be fixed safely')),
    sorted.map(finding));
}

const many = (count, what) => `${count} ${what}${count === 1 ? '' : 's'}`;

function finding(each) {
  const [sign, kind] = SIGNS[each.severity];
  return h('div', {class: 'finding'}, h('span', {class: kind, title: each.severity}, sign),
    h('div', null, h('p', null, each.message), each.severity !== 'ok' && each.reason && h('p', {class: 'dim small'}, each.reason),
      each.severity !== 'ok' && each.fix && h('p', {class: 'small mono'}, each.fix)));
}

async function loadBack() {
  const found = await get('autostart').catch((error) => error);
  if (!parts) return;
  if (found instanceof Error) {
    refill(parts.back, h('p', null, found.message, ' ', h('span', {class: 'dim'}, found.hint || '')));
    return;
  }
  const words = {true: ['good', '✓ Yes: it is started again after a power cut, by itself.'],
    false: ['warn', found.installed ? '! Not by itself after a power cut; the findings say why.'
      : '! Nothing starts the stack after a restart: `mlx-stack install` does.']};
  const [kind, text] = words[found.comes_back] || ['dim', 'Unknown.'];
  refill(parts.back, h('p', {class: kind}, text), (found.findings || []).map((each) => h('p', {class: 'small'},
    typeof each === 'string' ? each : [each.message, ' ', each.fix || each.hint || ''])));
}
