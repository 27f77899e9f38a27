package kfp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/skiff-ml/skiff/api/address"
)

// fetchTimeout is for a package of some megabytes over a poor link.
const fetchTimeout = 30 * time.Second

// fetch reads the pipeline package at an address that a request names.
func (a *API) fetch(ctx context.Context, from string) ([]byte, error) {
	sources := a.cfg.Sources
	if sources.Reach == address.Nowhere {
		return nil, refuse(rpcPrecondition, "package_url: this daemon fetches no pipelines by address; upload the file to %s/pipelines/upload, "+
			"or start the daemon with --pipeline-urls=public", base)
	}
	target, err := sources.Reach.Parse(from)
	if err != nil {
		return nil, badRequest("package_url.pipeline_url: %v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	client := address.NewClient(sources)
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, badRequest("package_url.pipeline_url: %v", err)
	}
	res, err := client.Do(req)
	switch {
	case errors.Is(err, address.ErrForbidden):
		return nil, badRequest("package_url.pipeline_url: %v; upload the file to %s/pipelines/upload", err, base)
	case err != nil:
		return nil, badRequest("fetch the pipeline: %v", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, badRequest("fetch the pipeline: %s answers %s", target.Host, res.Status)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxUpload+1))
	switch {
	case err != nil:
		return nil, badRequest("fetch the pipeline: %v", err)
	case len(data) > maxUpload:
		return nil, badRequest("fetch the pipeline: it has more than %d bytes", maxUpload)
	}
	return data, nil
}
