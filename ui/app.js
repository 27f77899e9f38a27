// What all pages share: requests, elements, and which page the address names.
import { pages } from './pages.js';

const main = document.getElementById('main');

// The administrator's token, where the server asked for one: in this tab's memory alone.
let token = '';

// Ends what the page before was still doing.
let leave = new AbortController();

/** Makes an element. Whatever is shown goes in as text, never as HTML. */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name === 'onclick' || name === 'onsubmit') element[name] = value;
    else if (value !== undefined && value !== '') element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== ''));
  return element;
}

/** An answer that was not what was asked for. */
export class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Sends a request, and throws a Refusal where the answer is not 200. */
export async function request(path, signal) {
  const headers = token ? { Authorization: 'Bearer ' + token } : {};
  const answer = await fetch(path, { headers, signal, redirect: 'error' });
  if (answer.ok) return answer;
  const text = await answer.text();
  let message = text;
  try {
    message = JSON.parse(text).message ?? text;
  } catch {
    // Not every answer is JSON.
  }
  throw new Refusal(answer.status, message || answer.statusText);
}

export const read = async (path, signal) => (await request(path, signal)).json();

/** Calls tell with each piece of text that an answer brings, until it ends. */
export async function stream(path, signal, tell) {
  const reader = (await request(path, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    tell(value);
  }
}

/** Saves what is at a path under a name. */
export async function save(path, name) {
  const link = h('a', { href: URL.createObjectURL(await (await request(path)).blob()), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}

function show(...content) {
  main.replaceChildren(...content);
}

function showProblem(error) {
  document.title = 'skiff';
  if (error.code === 401) {
    show(h('h1', {}, 'Who is there?'), h('p', {}, error.message),
      h('p', {}, 'On the machine that the daemon runs on, its user gets in without anything: open http://127.0.0.1 with the daemon’s port. ' +
        'From elsewhere it takes the administrator’s token, which is in the file admin.token of the daemon’s state folder. ' +
        'It stays in this tab and is forgotten with it.'),
      h('form', { onsubmit: (event) => {
        event.preventDefault();
        token = event.target.elements.token.value.trim();
        visit();
      } }, h('input', { name: 'token', type: 'password', placeholder: 'skf_…', 'aria-label': 'Token', autocomplete: 'off', required: '' }), h('button', {}, 'Go on')));
    return;
  }
  show(h('h1', {}, error.code === 404 ? 'There is no such thing' : 'This did not work'), h('p', { class: 'problem' }, error.message));
}

/** Shows the page that the address names. */
async function visit() {
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  const [path, query] = decodeHash();
  const page = pages.find((one) => one.path.test(path)) ?? pages[0];
  const shown = (title, ...content) => {
    if (signal.aborted) return;
    document.title = title + ' · skiff';
    show(...content);
  };
  try {
    await page.show({ match: page.path.exec(path) ?? [], query, signal, shown });
  } catch (error) {
    if (!signal.aborted) showProblem(error);
  }
}

function decodeHash() {
  const [path, query] = location.hash.replace(/^#/, '').split('?');
  return [path, new URLSearchParams(query)];
}

addEventListener('hashchange', () => {
  main.focus();
  visit();
});
visit();
