package daemon

import (
	"context"
	"io"
	"path/filepath"

	"github.com/skiff-ml/skiff/api/bundle"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/portable"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/server"
)

var (
	_ server.Portable = (*daemon)(nil)
	_ server.Exported = (*portable.Export)(nil)
)

// spoolDir, in the state folder, holds what exports put together.
const spoolDir = "spool"

// openPorter makes the Porter over an engine's rooms, and clears up after imports
// that the last daemon did not live to end.
func (d *daemon) openPorter(ctx context.Context, e *engines) error {
	cfg := portable.Config{
		Store: d.store, Artifacts: e.repository, Inspect: e.pipelines.Inspect, Dir: filepath.Join(d.cfg.StateDir, spoolDir),
		Version: d.cfg.Version, Logger: d.log,
	}
	if images, has := e.backend.(runtime.ImageArchives); has {
		cfg.Images = images
	}
	var err error
	if e.porter, err = portable.New(cfg); err != nil {
		return err
	}
	return e.porter.Recover(ctx)
}

// Export implements server.Portable.
func (d *daemon) Export(ctx context.Context, r server.ExportRequest) (server.Exported, error) {
	e, err := d.await(ctx)
	if err != nil {
		return nil, err
	}
	exported, err := e.porter.Export(ctx, portable.ExportRequest(r))
	if err != nil {
		return nil, err
	}
	return exported, nil
}

// Import implements server.Portable.
func (d *daemon) Import(ctx context.Context, r server.ImportRequest, body io.Reader) (*server.ImportReport, error) {
	e, err := d.await(ctx)
	if err != nil {
		return nil, err
	}
	report, err := e.porter.Import(ctx, portable.ImportRequest(r), body)
	if err != nil {
		return nil, err
	}
	return &server.ImportReport{
		Namespace: r.Namespace, DryRun: r.DryRun, Created: append([]string{}, report.Created...), Present: append([]string{}, report.Present...),
		Artifacts: report.Artifacts, Images: report.Images, Bytes: report.Bytes, Missing: append([]bundle.Need{}, report.Missing...),
	}, nil
}

// Reproduce implements server.Portable.
func (d *daemon) Reproduce(ctx context.Context, namespace, run string, anyImage bool) (*skiff.Run, error) {
	e, err := d.await(ctx)
	if err != nil {
		return nil, err
	}
	return e.pipelines.Reproduce(ctx, namespace, run, anyImage)
}

// HashRun implements server.Portable.
func (d *daemon) HashRun(ctx context.Context, run *skiff.Run) error {
	e, err := d.await(ctx)
	if err != nil {
		return err
	}
	return e.porter.HashRun(ctx, run)
}
