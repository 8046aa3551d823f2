// The server's side: documents, changes, and one stream of what happens.

export const store = {session: null};
const listeners = new Set();
let source = null, heardAt = 0, again = null, signedOut = () => {}, linked = () => {};

const TOPICS = ['status', 'requests', 'machine', 'recent', 'events', 'actions'];
const SILENT_MS = 45000, AGAIN_MS = 2000;

export class ApiError extends Error {
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.hint = error.hint;
  }
}

export function onSignedOut(callback) { signedOut = callback; }
export function onLink(callback) { linked = callback; }

// The answer of a model, to be read by the caller; a form is sent as one, anything else as JSON.
export async function askModel(path, body, signal) {
  const isForm = body instanceof FormData;
  const headers = {'x-mlx-stack-page': '1', ...(isForm ? {} : {'content-type': 'application/json'})};
  const response = await fetch(`api/v1/${path}`, {method: 'POST', signal, headers, body: isForm ? body : JSON.stringify(body)});
  if (response.ok) return response;
  if (response.status === 401) signedOut();
  const document = await response.json().catch(() => ({}));
  throw new ApiError(response.status, document.error || {message: `HTTP ${response.status}`});
}

async function call(method, path, values, more = {}) {
  const options = {method, cache: 'no-store', headers: {'x-mlx-stack-page': '1', ...more}};
  if (values) {
    options.body = JSON.stringify(values);
    options.headers['content-type'] = 'application/json';
  }
  let response;
  try {
    response = await fetch(`api/${path}`, options);
  } catch {
    throw new ApiError(0, {message: 'The gateway does not answer.', hint: '`mlx-stack up` starts it.'});
  }
  if (response.status === 304) return null;
  const document = await response.json().catch(() => ({}));
  if (response.status === 401 && path !== 'session') signedOut();
  if (!response.ok) throw new ApiError(response.status, document.error || {message: `HTTP ${response.status}`});
  Object.defineProperty(document, 'etag', {value: response.headers.get('etag')});
  return document;
}

export const get = (path, query, more) => {
  const words = new URLSearchParams(Object.entries(query || {}).filter(([, value]) => value)).toString();
  return call('GET', words ? `${path}?${words}` : path, null, more);
};
export const post = (path, values) => call('POST', path, values);
export const remove = (path) => call('DELETE', path);
export const isAdmin = () => Boolean(store.session?.is_admin);

// Calls back with a topic whenever it has changed; gives what ends that.
export function listen(callback) {
  listeners.add(callback);
  return () => listeners.delete(callback);
}

export function connect() {
  disconnect();
  source = new EventSource('api/events');
  heardAt = Date.now();
  source.addEventListener('open', () => { heard(); linked(true); });
  source.addEventListener('error', broken);
  source.addEventListener('alive', heard);
  for (const topic of TOPICS) {
    source.addEventListener(topic, (event) => {
      heard();
      store[topic] = JSON.parse(event.data);
      for (const listener of listeners) listener(topic);
    });
  }
}

export function disconnect() {
  clearTimeout(again);
  source?.close();
  source = null;
}

function heard() {
  heardAt = Date.now();
}

// The browser itself tries again where nobody listens; where it was refused, we ask why.
function broken() {
  linked(false);
  if (source?.readyState !== EventSource.CLOSED) return;
  clearTimeout(again);
  again = setTimeout(async () => {
    try {
      store.session = await get('session');
      connect();
    } catch (error) {
      if (error.status === 401) signedOut();
      else broken();
    }
  }, AGAIN_MS);
}

// A stream that a sleep has cut says nothing and reports no error.
function lookWhetherItLives() {
  if (source && Date.now() - heardAt > SILENT_MS) connect();
}
setInterval(lookWhetherItLives, 10000);
document.addEventListener('visibilitychange', () => { if (!document.hidden) lookWhetherItLives(); });
