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
	"strings"
	"time"
)

const kfpAbout = "Requests of the API of Kubeflow Pipelines to `skiff up`, over TCP on the loopback with the administrator's token, by a client of the same " +
	"machine: lists of 50 runs as the SDK and the UI ask for them, one request at a time, the first page and those behind it; " +
	"and `GET /runs/ID` (a run of five tasks, with its pipeline of 10 kB) by eight connections at once. " +
	"The runs are of two namespaces, 20 experiments and five recurring runs; half have metrics, and nothing that they are listed by has to do with their age. " +
	"A page looks through 10,000 rows of an index at most: where few runs fit it comes short, with the token of the rest."

const (
	kfpPage = 50
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

// kfpQuery is a list that is measured: from its beginning, or from behind that many
// pages of 200 runs.
type kfpQuery struct {
	name, query string
	deep        int
}

// kfpQueries are the lists that the SDK, its command line and the UI ask for.
func kfpQueries() []kfpQuery {
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
	at := func(op int, key string, when time.Time) string {
		return fmt.Sprintf(`{"operation":%d,"key":%q,"timestamp_value":%q}`, op, key, when.Format(time.RFC3339))
	}
	above := func(key, value string) string {
		return fmt.Sprintf(`{"operation":3,"key":%q,"stringValue":%q}`, key, value)
	}
	const newest = "&sort_by=created_at%20desc"
	large, small := "&experiment_id="+benchExperiment(0), "&experiment_id="+benchExperiment(kfpExperiments-1)
	day := benchEpoch().Add(-24 * time.Hour)
	return []kfpQuery{
		{"with no order and no filter", "", 0},
		{"newest first", newest, 0},
		{"newest first, 40,000 runs on", newest, 200},
		{"of another namespace", "&namespace=" + kfpTeam + newest, 0},
		{"of an experiment of half of all", large + newest, 0},
		{"not archived, of an experiment of half of all", large + newest + filter(shown), 0},
		{"not archived, of an experiment of a fortieth", small + newest + filter(shown), 0},
		{"archived", newest + filter(is("storage_state", "ARCHIVED")), 0},
		{"by state, one in fourteen", newest + filter(is("state", "FAILED")), 0},
		{"by state, one in a hundred, not archived", newest + filter(shown, is("state", "CANCELED")), 0},
		{"by state, of an experiment of a fortieth", small + newest + filter(is("state", "FAILED")), 0},
		{"of a recurring run", newest + filter(is("recurring_run_id", benchRecurring(1))), 0},
		{"by a part of the name", newest + filter(holds("RESNET")), 0},
		{"by the beginning of the name", newest + filter(holds("tune yolo")), 0},
		{"by a part of the name, not archived, of an experiment", large + newest + filter(shown, holds("resnet")), 0},
		{"by a part of the name that nothing has", newest + filter(holds("no-such-name")), 0},
		{"by the whole name", filter(is("display_name", "train resnet 0004711")), 0},
		{"made since a time", filter(at(3, "created_at", day)), 0},
		{"made on a day, not archived", newest + filter(shown, at(5, "created_at", day.Add(-24*time.Hour)), at(6, "created_at", day)), 0},
		{"made on a day, of an experiment, by name", large + "&sort_by=name" + filter(at(5, "created_at", day.Add(-24*time.Hour)), at(6, "created_at", day)), 0},
		{"sorted by name", "&sort_by=name", 0},
		{"sorted by name, from the end", "&sort_by=name%20desc", 0},
		{"sorted by name, 40,000 runs on", "&sort_by=name", 200},
		{"sorted by name, of an experiment of a fortieth", small + "&sort_by=name%20desc", 0},
		{"sorted by name, not archived, of an experiment of half of all", large + "&sort_by=name" + filter(shown), 0},
		{"sorted by end", "&sort_by=finished_at", 0},
		{"sorted by end, the last first", "&sort_by=finished_at%20desc", 0},
		{"sorted by end, not archived, of an experiment of a fortieth", small + "&sort_by=finished_at%20desc" + filter(shown), 0},
		{"ended since a time", newest + filter(at(5, "finished_at", day)), 0},
		{"sorted by state", "&sort_by=state%20desc", 0},
		{"sorted by id", "&sort_by=run_id", 0},
		{"sorted by a metric", "&sort_by=metric:accuracy%20desc", 0},
		{"sorted by a metric, 40,000 runs on", "&sort_by=metric:accuracy%20desc", 200},
		{"sorted by a metric, succeeded and not archived", "&sort_by=metric:accuracy%20desc" + filter(shown, is("state", "SUCCEEDED")), 0},
		{"with a metric above a value, newest first", newest + filter(above("metric:accuracy", "0.9")), 0},
		{"with a metric above a value, sorted by it, of an experiment of a fortieth", small + "&sort_by=metric:accuracy" + filter(shown, above("metric:accuracy", "0.9")), 0},
		{"sorted by a parameter", "&sort_by=parameter:rate", 0},
	}
}

// kfpLists measures each query's pages, as far as people leaf. A round is of all
// queries, and its requests together are the figure of all lists.
func kfpLists(ctx context.Context, b *bench, c *kfpClient, d *daemon) error {
	queries := kfpQueries()
	tails, costs := make([][]float64, len(queries)), make([][]float64, len(queries))
	begins := make([]string, len(queries))
	for i, q := range queries {
		for range b.size(q.deep, min(q.deep, 2)) {
			token, err := c.page(ctx, q.query, 200, begins[i])
			if err != nil {
				return fmt.Errorf("%s: %w", q.name, err)
			}
			begins[i] = token
		}
	}
	var all, work []float64
	for range b.pairs() {
		var together, worked []time.Duration
		for i, q := range queries {
			var took, spent []time.Duration
			for range b.size(10, 2) {
				for n, token := 0, begins[i]; n == 0 || (n < 10 && token != ""); n++ {
					before, err := d.cpu()
					if err != nil {
						return err
					}
					begin := time.Now()
					if token, err = c.page(ctx, q.query, kfpPage, token); err != nil {
						return fmt.Errorf("%s: %w", q.name, err)
					}
					took = append(took, time.Since(begin))
					after, err := d.cpu()
					if err != nil {
						return err
					}
					spent = append(spent, after-before)
				}
			}
			together, worked = append(together, took...), append(worked, spent...)
			tails[i] = append(tails[i], percentile(took, 99))
			costs[i] = append(costs[i], percentile(spent, 99))
		}
		all, work = append(all, percentile(together, 99)), append(work, percentile(worked, 99))
	}
	b.figure("lists of runs, all of those below, p99", milliseconds(), atMost(25, milliseconds()), all)
	b.figure("lists of runs, all of those below, the daemon's CPU time, p99", milliseconds(), noBar(), work)
	for i, q := range queries {
		b.figure("list of runs, "+q.name+", p99", milliseconds(), atMost(25, milliseconds()), tails[i])
		b.figure("list of runs, "+q.name+", the daemon's CPU time, p99", milliseconds(), noBar(), costs[i])
	}
	return nil
}

// page asks for a page of a list and returns the token of the next one.
func (c *kfpClient) page(ctx context.Context, query string, size int, token string) (next string, err error) {
	path := fmt.Sprintf("%s?page_size=%d%s", kfpRuns, size, query)
	if token != "" {
		path += "&page_token=" + url.QueryEscape(token)
	}
	var page struct {
		Next string `json:"next_page_token"`
	}
	err = c.get(ctx, path, &page)
	return page.Next, err
}

// kfpGets measures single runs, and what each costs the daemon.
func kfpGets(ctx context.Context, b *bench, c *kfpClient, d *daemon, names []string) error {
	var rates, tails, costs []float64
	for range b.pairs() {
		before, err := d.cpu()
		if err != nil {
			return err
		}
		span := b.span(10*time.Second, 100*time.Millisecond)
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
