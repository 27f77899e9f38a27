package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/engine/recurring"
	"github.com/skiff-ml/skiff/store"
)

const kfpAbout = "Requests of the API of Kubeflow Pipelines to `skiff up`, over TCP on the loopback with the administrator's token, by a client of the same " +
	"machine: lists of 50 runs as the SDK and the UI ask for them, one request at a time, the first page and those behind it, in a state of very many runs; " +
	"and `GET /runs/ID` (a run of five tasks, with its pipeline of 10 kB) by eight connections at once. " +
	"A page looks through 20,000 rows of an index at most: where few runs fit it comes short, with the token of the rest."

const (
	kfpExperiments = 20
	// kfpDetailed runs have tasks: those that are asked for one by one.
	kfpDetailed = 2000
	kfpPage     = 50
	// a transaction writes each page of theirs that it touches.
	kfpClients = 8
	kfpRuns    = "/apis/v2beta1/runs"
)

// runKFP fills a state and asks for it.
func runKFP(ctx context.Context, b *bench) (err error) {
	count := b.size(b.objects, 5_000)
	state := filepath.Join(b.dir, "state")
	b.say("filling a state with %s runs", thousands(fmt.Sprint(count)))
	begin := time.Now()
	detailed, err := fillRuns(ctx, state, count)
	if err != nil {
		return err
	}
	b.note("The state held %s runs; it was filled in %.0f s.", thousands(fmt.Sprint(count)), time.Since(begin).Seconds())
	d, err := b.startDaemon(ctx, state, "--runtime", "process")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if _, err := d.enginesUp(ctx); err != nil {
		return err
	}
	token, err := os.ReadFile(filepath.Join(state, "admin.token"))
	if err != nil {
		return fmt.Errorf("read the token: %w", err)
	}
	c := &kfpClient{http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: kfpClients}},
		base: "http://" + d.addr, token: strings.TrimSpace(string(token))}
	defer c.http.CloseIdleConnections()
	if err := kfpLists(ctx, b, c, d); err != nil {
		return err
	}
	return kfpGets(ctx, b, c, d, detailed)
}

// kfpClient speaks to the daemon as the SDK does.
type kfpClient struct {
	http        *http.Client
	base, token string
}

// get reads an answer whole; into may be nil.
func (c *kfpClient) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s %.300s: %w", path, res.Status, data, err)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(data, into)
}

// kfpQueries are the lists that the SDK, its command line and the UI ask for.
func kfpQueries() []struct{ name, query string } {
	filter := func(predicates ...string) string {
		return "&filter=" + url.QueryEscape(`{"predicates":[`+strings.Join(predicates, ",")+`]}`)
	}
	is := func(key, value string) string {
		return fmt.Sprintf(`{"operation":1,"key":%q,"stringValue":%q}`, key, value)
	}
	holds := func(text string) string {
		return fmt.Sprintf(`{"operation":9,"key":"display_name","stringValue":%q}`, text)
	}
	const shown = `{"operation":2,"key":"storage_state","stringValue":"ARCHIVED"}`
	large, small := "experiment_id="+benchExperiment(0), "experiment_id="+benchExperiment(kfpExperiments-1)
	return []struct{ name, query string }{
		{"newest first", "&sort_by=created_at%20desc"},
		{"oldest first", ""},
		{"of an experiment of half of all", large + "&sort_by=created_at%20desc"},
		{"not archived, of an experiment", large + "&sort_by=created_at%20desc" + filter(shown)},
		{"archived", "&sort_by=created_at%20desc" + filter(is("storage_state", "ARCHIVED"))},
		{"by state, one in a hundred", "&sort_by=created_at%20desc" + filter(is("state", "FAILED"))},
		{"by state, of an experiment", small + "&sort_by=created_at%20desc" + filter(is("state", "FAILED"))},
		{"by a part of the name", "&sort_by=created_at%20desc" + filter(holds("RESNET"))},
		{"by a part of the name, not archived, of an experiment", large + "&sort_by=created_at%20desc" + filter(shown, holds("resnet"))},
		{"by a part of the name that nothing has", "&sort_by=created_at%20desc" + filter(holds("no-such-name"))},
		{"by the whole name", filter(is("display_name", "train resnet 0004711"))},
		{"sorted by name", "&sort_by=name"},
		{"sorted by name, of an experiment", small + "&sort_by=name%20desc"},
		{"sorted by name, not archived, of an experiment of half of all", large + "&sort_by=name" + filter(shown)},
		{"sorted by state", "&sort_by=state%20desc"},
		{"made since a time", filter(fmt.Sprintf(`{"operation":3,"key":"created_at","timestamp_value":%q}`, benchEpoch().Add(-time.Hour).Format(time.RFC3339)))},
		{"sorted by a metric", "&sort_by=metric:accuracy%20desc"},
		{"with a metric above a value, sorted by it, of an experiment", small + "&sort_by=metric:accuracy" +
			filter(shown, `{"operation":3,"key":"metric:accuracy","stringValue":"0.9"}`)},
		{"sorted by a parameter", "&sort_by=parameter:rate"},
	}
}

// kfpLists measures each query's pages, as far as people leaf.
func kfpLists(ctx context.Context, b *bench, c *kfpClient, d *daemon) error {
	for _, q := range kfpQueries() {
		var tails, costs []float64
		for range b.pairs() {
			var took []time.Duration
			before, err := d.cpu()
			if err != nil {
				return err
			}
			for range b.size(20, 2) {
				token := ""
				for range 10 {
					var page struct {
						Next string `json:"next_page_token"`
					}
					begin := time.Now()
					path := fmt.Sprintf("%s?page_size=%d&%s", kfpRuns, kfpPage, strings.TrimPrefix(q.query, "&"))
					if token != "" {
						path += "&page_token=" + url.QueryEscape(token)
					}
					if err := c.get(ctx, path, &page); err != nil {
						return fmt.Errorf("%s: %w", q.name, err)
					}
					took = append(took, time.Since(begin))
					if token = page.Next; token == "" {
						break
					}
				}
			}
			after, err := d.cpu()
			if err != nil {
				return err
			}
			tails = append(tails, percentile(took, 99))
			costs = append(costs, float64((after-before).Microseconds())/1000/float64(len(took)))
		}
		b.figure("list of runs, "+q.name+", p99", milliseconds(), atMost(25, milliseconds()), tails)
		b.figure("list of runs, "+q.name+", the daemon's CPU time", milliseconds(), noBar(), costs)
	}
	return nil
}

// kfpGets measures single runs, and what each costs the daemon.
func kfpGets(ctx context.Context, b *bench, c *kfpClient, d *daemon, names []string) error {
	var rates, tails, costs []float64
	for range b.pairs() {
		before, err := d.cpu()
		if err != nil {
			return err
		}
		span := b.span(5*time.Second, 100*time.Millisecond)
		r, err := round(ctx, kfpClients, span, func(ctx context.Context, rng *rand.Rand, _, _ int) error {
			return c.get(ctx, kfpRuns+"/"+names[rng.IntN(len(names))], nil)
		})
		if err != nil {
			return err
		}
		after, err := d.cpu()
		if err != nil {
			return err
		}
		rates, tails = append(rates, r.perSecond), append(tails, r.p99)
		costs = append(costs, float64((after-before).Microseconds())/(r.perSecond*span.Seconds()))
	}
	b.figure("a run by its id", perSecond(), atLeast(2000, perSecond()), rates)
	b.figure("a run by its id, p99", milliseconds(), noBar(), tails)
	b.figure("a run by its id, the daemon's CPU time", microseconds(), noBar(), costs)
	return nil
}

// benchEpoch is when the newest run of a filled state was made.
func benchEpoch() time.Time { return time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC) }

func benchExperiment(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

// fillRuns makes a state folder with ended runs, one a second, of which the
// newest have tasks; their names are returned.
func fillRuns(ctx context.Context, state string, count int) (detailed []string, err error) {
	s, err := store.Open(ctx, store.Config{Path: filepath.Join(state, "skiff.db"), Kinds: slices.Concat(pipeline.Kinds(), pod.Kinds(), recurring.Kinds())})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ops := []store.Op{{Verb: store.Create, Kind: pipeline.Manifests, Object: benchManifest()}}
	for i := range kfpExperiments {
		ops = append(ops, store.Op{Verb: store.Create, Kind: pipeline.Experiments, Object: &skiff.Experiment{
			ObjectMeta: core.ObjectMeta{Name: benchExperiment(i), Namespace: "default"}, Spec: skiff.ExperimentSpec{DisplayName: fmt.Sprintf("experiment %d", i)}}})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range count {
		i := count - 1 - n // the newest stand first in most indexes
		made, err := benchRun(rng, count, i)
		if err != nil {
			return nil, err
		}
		ops = append(ops, store.Op{Verb: store.Create, Kind: pipeline.Runs, Object: made})
		if count-i <= kfpDetailed {
			detailed = append(detailed, made.Name)
			ops = append(ops, benchTasks(made)...)
		}
		if len(ops) < fillBatch && i > 0 {
			continue
		}
		if _, err := s.Commit(ctx, ops...); err != nil {
			return nil, fmt.Errorf("fill the state: %w", err)
		}
		ops = ops[:0]
	}
	return detailed, nil
}

const benchManifestName = "sha256-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

// benchManifest is a pipeline of the size that five lightweight components have.
func benchManifest() *skiff.PipelineManifest {
	program := strings.Repeat("def step(rate: float) -> float:\\n    return rate * 2\\n", 35)
	executors := map[string]any{}
	for i := range tasksPerRun {
		executors["exec-"+stepName(i)] = map[string]any{"container": map[string]any{"image": "python:3.11", "command": []string{"sh", "-c", program}}}
	}
	spec, _ := json.Marshal(map[string]any{"pipelineInfo": map[string]string{"name": "train-and-compare"}, "schemaVersion": "2.1.0", "sdkVersion": "kfp-2.17.0",
		"deploymentSpec": map[string]any{"executors": executors}}) // texts always encode
	return &skiff.PipelineManifest{ObjectMeta: core.ObjectMeta{Name: benchManifestName, Namespace: "default"}, PipelineSpec: spec}
}

// benchRun is the run numbered i of count.
func benchRun(rng *rand.Rand, count, i int) (*skiff.Run, error) {
	run, err := newRun()
	if err != nil {
		return nil, err
	}
	run.CreationTimestamp = benchEpoch().Add(time.Duration(i-count+1) * time.Second)
	run.Spec.DisplayName = fmt.Sprintf("train %s %07d", []string{"resnet", "vit", "unet", "bert"}[rng.IntN(4)], i)
	run.Spec.Manifest = benchManifestName
	// Half of all are in the first experiment.
	run.Spec.Experiment = benchExperiment(max(0, rng.IntN(2*kfpExperiments)-kfpExperiments))
	run.Spec.Archived = rng.IntN(10) == 0
	// Values grow over time, with some noise, or are a few: what a store of years
	// took in one by one must be filled within minutes here.
	accuracy := (float64(i) + 1000*rng.Float64()) / float64(count+1000)
	run.Spec.Parameters["rate"] = json.RawMessage(fmt.Sprintf("%.4f", float64(rng.IntN(40))/1000))
	run.Status = skiff.RunStatus{State: skiff.StateSucceeded, StartedAt: run.CreationTimestamp, FinishedAt: run.CreationTimestamp.Add(time.Minute),
		TaskCounts: map[skiff.State]int{skiff.StateSucceeded: tasksPerRun},
		Metrics:    map[string]json.RawMessage{"accuracy": json.RawMessage(fmt.Sprintf("%.9f", accuracy)), "loss": json.RawMessage(fmt.Sprintf("%.9f", 1-accuracy))}}
	if rng.IntN(100) == 0 {
		run.Status.State, run.Status.Message = skiff.StateFailed, "train failed"
	}
	for at, state := range []skiff.State{skiff.StatePending, skiff.StateRunning, run.Status.State} {
		run.Status.History = append(run.Status.History, skiff.StateChange{State: state, At: run.CreationTimestamp.Add(time.Duration(at) * time.Second)})
	}
	return run, nil
}

// benchTasks are a run's tasks.
func benchTasks(run *skiff.Run) []store.Op {
	ops := make([]store.Op, 0, tasksPerRun)
	for i := range tasksPerRun {
		key := stepName(i)
		ops = append(ops, store.Op{Verb: store.Create, Kind: pipeline.Tasks, Object: &skiff.Task{
			ObjectMeta: core.ObjectMeta{Name: run.Name + "." + key, Namespace: run.Namespace},
			Spec:       skiff.TaskSpec{Run: run.Name, Path: key, Key: key, DisplayName: key, Component: "comp-" + key, Type: skiff.TaskContainer},
			Status: skiff.TaskStatus{State: skiff.StateSucceeded, Attempts: 1, Pod: run.Name + "-" + key, StartedAt: run.Status.StartedAt, FinishedAt: run.Status.FinishedAt,
				Outputs: map[string]json.RawMessage{"Output": json.RawMessage(`0.5`)}, OutputArtifacts: map[string][]string{"model": {run.Name + "-model"}}},
		}})
	}
	return ops
}
