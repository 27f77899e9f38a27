// The pages. Each has a pattern for what follows the # in the address, and shows what the APIs have.
import { h, read, save, stream } from './app.js';

const kfp = '/apis/v2beta1';
const inNamespace = (namespace) => '/apis/skiff.dev/v1alpha1/namespaces/' + encodeURIComponent(namespace);

// A long log is shown from its end: a browser takes this many characters in its stride.
const mostOfALog = 2_000_000;

const link = (to, text) => h('a', { href: '#' + to }, text || '–');
const state = (word) => h('span', { class: 'state ' + (word || 'UNKNOWN') }, word || 'UNKNOWN');
const moment = (text) => (text ? h('time', { datetime: text, title: text }, new Date(text).toLocaleString()) : '–');
const final = (word) => ['SUCCEEDED', 'FAILED', 'SKIPPED', 'CANCELED'].includes(word);

function took(from, to) {
  if (!from) return '–';
  const seconds = Math.max(0, (to ? new Date(to) : Date.now()) - new Date(from)) / 1000;
  if (seconds < 60) return seconds.toFixed(1) + ' s';
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function bytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  for (; count >= 1024 && at < units.length - 1; at++) count /= 1024;
  return (at ? count.toFixed(1) : count) + ' ' + units[at];
}

const plain = (value) => (typeof value === 'string' ? value : JSON.stringify(value));

/** Names and values; those without a value are left out. */
function facts(entries) {
  const shown = entries.filter(([, value]) => value !== undefined && value !== '');
  return h('dl', {}, shown.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
}

const numbers = ['Attempts', 'Exit code', 'Size'];

/** A table under a heading, or the words for none. */
function table(title, columns, rows, none) {
  const heading = title ? [h('h2', {}, title)] : [];
  if (rows.length === 0) return none ? [...heading, h('p', { class: 'quiet' }, none)] : [];
  const head = h('tr', {}, columns.map((column) => h('th', { scope: 'col', class: numbers.includes(column) ? 'number' : '' }, column)));
  return [...heading, h('div', { class: 'wide' }, h('table', {}, h('thead', {}, head), h('tbody', {}, rows)))];
}

const row = (...cells) => h('tr', {}, cells.map((cell) => (cell instanceof HTMLTableCellElement ? cell : h('td', {}, cell ?? ''))));

/** Where the next page of a list is, as a link; the list's other parameters stay. */
function more(token, to, query) {
  if (!token) return [];
  const next = new URLSearchParams(query);
  next.set('page_token', token);
  return [h('p', {}, link(`${to}?${next}`, 'Older ones'))];
}

function listQuery(query, extra) {
  const all = new URLSearchParams({ page_size: '50', sort_by: 'created_at desc', ...extra });
  for (const name of ['namespace', 'page_token']) if (query.get(name)) all.set(name, query.get(name));
  return all;
}

async function runsTable(query, signal, to, extra) {
  const { runs = [], next_page_token: next } = await read(`${kfp}/runs?${listQuery(query, extra)}`, signal);
  const rows = runs.map((run) => row(link('/runs/details/' + run.run_id, run.display_name || run.run_id), state(run.state),
    moment(run.created_at), took(run.created_at, run.finished_at ?? undefined), run.error?.message));
  return [...table('', ['Run', 'State', 'Created', 'Took', 'Message'], rows, 'There are no runs yet.'), ...more(next, to, query)];
}

async function showRuns({ query, signal, shown }) {
  shown('Runs', h('h1', {}, 'Runs'), ...(await runsTable(query, signal, '/runs')));
}

async function showExperiments({ query, signal, shown }) {
  const { experiments = [], next_page_token: next } = await read(`${kfp}/experiments?${listQuery(query)}`, signal);
  const rows = experiments.map((one) => row(link('/experiments/details/' + one.experiment_id, one.display_name), one.description, moment(one.created_at), moment(one.last_run_created_at)));
  shown('Experiments', h('h1', {}, 'Experiments'),
    ...table('', ['Experiment', 'Description', 'Created', 'Last run'], rows, 'There are no experiments yet.'), ...more(next, '/experiments', query));
}

async function showExperiment({ match: [, id], query, signal, shown }) {
  const one = await read(`${kfp}/experiments/${encodeURIComponent(id)}`, signal);
  shown(one.display_name, h('h1', {}, one.display_name),
    facts([['Experiment', one.experiment_id], ['Namespace', one.namespace], ['Description', one.description], ['Created', moment(one.created_at)],
      ['Archived', one.storage_state === 'ARCHIVED' ? 'yes' : undefined]]),
    h('h2', {}, 'Runs'), ...(await runsTable(query, signal, '/experiments/details/' + id, { experiment_id: id })));
}

async function showPipelines({ query, signal, shown }) {
  const { pipelines = [], next_page_token: next } = await read(`${kfp}/pipelines?${listQuery(query)}`, signal);
  const rows = pipelines.map((one) => row(link('/pipelines/details/' + one.pipeline_id, one.display_name || one.name), one.description, moment(one.created_at)));
  shown('Pipelines', h('h1', {}, 'Pipelines'),
    ...table('', ['Pipeline', 'Description', 'Created'], rows, 'There are no pipelines yet.'), ...more(next, '/pipelines', query));
}

async function showPipeline({ match: [, id, wanted], signal, shown }) {
  const at = `${kfp}/pipelines/${encodeURIComponent(id)}`;
  const [one, list] = await Promise.all([read(at, signal), read(`${at}/versions?${listQuery(new URLSearchParams())}`, signal)]);
  const versions = list.pipeline_versions ?? [];
  const version = wanted ? await read(`${at}/versions/${encodeURIComponent(wanted)}`, signal) : versions[0];
  const rows = versions.map((v) => row(link(`/pipelines/details/${id}/version/${v.pipeline_version_id}`, v.display_name || v.name), v.description, moment(v.created_at)));
  const title = one.display_name || one.name;
  shown(title, h('h1', {}, title),
    facts([['Pipeline', one.pipeline_id], ['Namespace', one.namespace], ['Description', one.description], ['Created', moment(one.created_at)]]),
    ...table('Versions', ['Version', 'Description', 'Created'], rows, 'It has no version.'),
    ...(version ? [h('h2', {}, 'Version ' + (version.display_name || version.name)), h('pre', {}, JSON.stringify(version.pipeline_spec, null, 2))] : []));
}

async function showRecurringRun({ match: [, id], signal, shown }) {
  const one = await read(`${kfp}/recurringruns/${encodeURIComponent(id)}`, signal);
  shown(one.display_name, h('h1', {}, one.display_name),
    facts([['Recurring run', one.recurring_run_id], ['Namespace', one.namespace], ['Status', one.status], ['Created', moment(one.created_at)],
      ['Experiment', one.experiment_id && link('/experiments/details/' + one.experiment_id, one.experiment_id)],
      ['Trigger', one.trigger && h('code', {}, JSON.stringify(one.trigger))], ['At once', one.max_concurrency]]));
}

/** The document of a run, whatever namespace it is in: its experiment tells. */
async function findRun(id, signal) {
  const run = await read(`${kfp}/runs/${encodeURIComponent(id)}`, signal);
  const experiment = await read(`${kfp}/experiments/${encodeURIComponent(run.experiment_id)}`, signal);
  return { run, experiment, at: inNamespace(experiment.namespace) };
}

const readDocument = ({ run, at }, signal) => read(`${at}/runs/${encodeURIComponent(run.run_id)}/document`, signal);

async function showRun(page) {
  const { match: [, id], query, signal, shown } = page;
  const found = await findRun(id, signal);
  if (query.get('log')) return showLog(page, found);
  const again = async () => {
    const doc = await readDocument(found, signal);
    shown(doc.display_name || doc.run_id, ...runContent(found, doc));
    return doc;
  };
  if (!final((await again()).state)) await follow(found, signal, again);
}

/** Shows a run again whenever one of its tasks, or it itself, has changed, until it has ended. */
async function follow({ run, at }, signal, again) {
  const streams = new AbortController();
  const end = () => streams.abort();
  signal.addEventListener('abort', end);
  let waiting = 0;
  const changed = () => {
    // Changes come in crowds; each tenth of a second they are shown together.
    waiting ||= setTimeout(async () => {
      waiting = 0;
      try {
        if (final((await again()).state)) end();
      } catch {
        end();
      }
    }, 100);
  };
  const watches = [`runs?watch=true&fieldSelector=metadata.name%3D${encodeURIComponent(run.run_id)}`,
    `tasks?watch=true&labelSelector=skiff.dev%2Frun%3D${encodeURIComponent(run.run_id)}`];
  try {
    await Promise.all(watches.map((watch) => stream(`${at}/${watch}`, streams.signal, changed)));
  } catch (error) {
    if (!streams.signal.aborted) throw error;
  } finally {
    signal.removeEventListener('abort', end);
  }
}

function runContent({ run, experiment, at }, doc) {
  const values = (map) => Object.entries(map ?? {}).map(([name, value]) => row(name, h('td', {}, h('pre', {}, plain(value)))));
  const made = new Map();
  for (const artifact of doc.artifacts) made.set(artifact.id, artifact);
  const version = run.pipeline_version_reference;
  const pipeline = version ? link(`/pipelines/details/${version.pipeline_id}/version/${version.pipeline_version_id}`, doc.pipeline) : doc.pipeline;
  return [
    h('h1', {}, doc.display_name || doc.run_id),
    h('p', {}, state(doc.state), doc.fake ? ' on declared, not existing, capacity' : ''),
    doc.message ? h('p', { class: doc.state === 'FAILED' ? 'problem' : 'quiet' }, doc.message) : '',
    facts([['Run', doc.run_id], ['Pipeline', pipeline], ['Experiment', link('/experiments/details/' + experiment.experiment_id, experiment.display_name)],
      ['Recurring run', run.recurring_run_id && link('/recurringrun/details/' + run.recurring_run_id, run.recurring_run_id)],
      ['Namespace', doc.namespace], ['Created', moment(doc.created)], ['Started', moment(doc.started)], ['Finished', moment(doc.finished)],
      ['Took', took(doc.started, doc.finished)], ['Retries', doc.retries], ['Archived', doc.archived ? 'yes' : undefined]]),
    ...table('Parameters', ['Name', 'Value'], values(doc.parameters)),
    ...table('Outputs', ['Name', 'Value'], values(doc.outputs)),
    ...table('Tasks', ['Task', 'State', 'Attempts', 'Started', 'Took', 'Exit code', 'Message', 'Log', 'Artifacts'],
      inTree(doc.tasks).map((task) => taskRow(doc, task, made, at)), 'It has no tasks yet.'),
    ...table('Metrics', ['Task', 'Artifact', 'Metric', 'Value'], doc.metrics.map((one) => row(one.task, one.artifact, one.name, String(one.value)))),
    ...table('Artifacts', ['Artifact', 'Task', 'Type', 'Size', 'Metadata', 'Where'], doc.artifacts.map((one) => row(content(one, at), one.task, one.type,
      h('td', { class: 'number' }, bytes(one.size)), Object.keys(one.metadata ?? {}).length ? h('td', {}, h('pre', {}, JSON.stringify(one.metadata, null, 1))) : '', one.uri))),
  ].filter((part) => part !== '');
}

/** Tasks as they began, each before those below it. */
function inTree(tasks) {
  const below = new Map();
  const known = new Set(tasks.map((task) => task.name));
  for (const task of tasks) {
    const parent = known.has(task.parent) ? task.parent : '';
    below.set(parent, [...(below.get(parent) ?? []), task]);
  }
  const walk = (name) => (below.get(name) ?? []).flatMap((task) => [task, ...walk(task.name)]);
  return walk('');
}

function taskRow(doc, task, made, at) {
  const parts = task.name.split('/');
  const pass = /^\d+$/.test(parts.at(-1));
  const artifacts = Object.values(task.output_artifacts ?? {}).flat().map((id) => made.get(id)).filter(Boolean);
  return h('tr', {},
    h('td', {}, h('div', { class: 'depth-' + Math.min(parts.length - 1, 4), title: task.name }, pass ? 'pass ' + parts.at(-1) : task.display_name || parts.at(-1))),
    h('td', {}, state(task.state), task.cached ? h('div', { class: 'quiet' }, 'from the cache') : ''),
    h('td', { class: 'number' }, String(task.attempts)),
    h('td', {}, moment(task.started)), h('td', { class: 'short' }, took(task.started, task.finished ?? doc.finished)),
    h('td', { class: 'number' }, task.exit_code === null ? '' : String(task.exit_code)),
    h('td', {}, task.message || task.reason || ''),
    h('td', {}, task.pod ? link(`/runs/details/${doc.run_id}?log=${task.id}`, 'log') : ''),
    h('td', {}, artifacts.flatMap((one, i) => [i ? ', ' : '', content(one, at)])));
}

/** An artifact's name, as a button that saves what it holds where that is still there. */
function content(artifact, at) {
  if (artifact.gone) return h('span', { title: artifact.gone }, artifact.name + ' (gone)');
  if (artifact.missing) return h('span', { title: 'its step wrote no file, metadata at most' }, artifact.name);
  const from = `${at}/artifacts/${encodeURIComponent(artifact.id)}/content`;
  return h('a', { href: from, onclick: async (event) => {
    event.preventDefault();
    try {
      await save(from, artifact.name);
    } catch (error) {
      event.target.replaceWith(artifact.name + ': ' + error.message);
    }
  } }, artifact.name);
}

async function showLog({ query, signal, shown }, found) {
  const id = query.get('log');
  const doc = await readDocument(found, signal);
  const task = doc.tasks.find((one) => one.id === id);
  const text = h('pre', { tabindex: '0', role: 'log' });
  const title = task ? task.name : id;
  shown('Log of ' + title, h('p', {}, link('/runs/details/' + found.run.run_id, '← ' + (doc.display_name || doc.run_id))),
    h('h1', {}, title), h('p', {}, task ? state(task.state) : ''), text);
  await stream(`${found.at}/tasks/${encodeURIComponent(id)}/log?follow=true`, signal, (piece) => {
    const atEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
    text.append(piece);
    if (text.textContent.length > mostOfALog) text.textContent = text.textContent.slice(-mostOfALog / 2);
    if (atEnd) text.scrollTop = text.scrollHeight;
  });
  if (!text.textContent) text.replaceWith(h('p', { class: 'quiet' }, 'It wrote nothing.'));
}

/** What an address shows; the first is for all that none has. */
export const pages = [
  { path: /^\/?(?:runs)?$/, show: showRuns },
  { path: /^\/runs\/details\/([^/]+)$/, show: showRun },
  { path: /^\/experiments$/, show: showExperiments },
  { path: /^\/experiments\/details\/([^/]+)$/, show: showExperiment },
  { path: /^\/pipelines$/, show: showPipelines },
  { path: /^\/pipelines\/details\/([^/]+)(?:\/version\/([^/]+))?$/, show: showPipeline },
  { path: /^\/recurringrun\/details\/([^/]+)$/, show: showRecurringRun },
];
