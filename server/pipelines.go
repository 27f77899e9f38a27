package server

import (
	"context"
	"io"

	"github.com/skiff-ml/skiff/api/address"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/kfp"
)

// kfpAPI is the API of Kubeflow Pipelines over this server's rooms.
func (s *Server) kfpAPI() *kfp.API {
	cfg := kfp.Config{
		Store: s.cfg.Store, Engine: kfpEngine{s.cfg.Pipelines}, Sources: address.Config{Reach: s.cfg.PipelineSources}, Logger: s.cfg.Logger,
		PodLogs: func(ctx context.Context, namespace, pod string, w io.Writer) error {
			return s.cfg.Logs.PodLogs(ctx, namespace, pod, LogOptions{TailLines: -1}, w)
		},
	}
	if s.cfg.Artifacts != nil {
		cfg.Artifact = func(ctx context.Context, artifact *skiff.Artifact) (io.ReadCloser, error) {
			return s.cfg.Artifacts.OpenArtifact(ctx, artifact)
		}
	}
	return kfp.New(cfg)
}

// kfpEngine hands what the API submits to where everything is submitted.
type kfpEngine struct{ Pipelines }

var _ kfp.Engine = kfpEngine{}

// Submit implements kfp.Engine.
func (e kfpEngine) Submit(ctx context.Context, s kfp.Submission) (*skiff.Run, error) {
	return e.Pipelines.Submit(ctx, submissionOf(s))
}

// Check implements kfp.Engine.
func (e kfpEngine) Check(ctx context.Context, s kfp.Submission) error {
	return e.Pipelines.Check(ctx, submissionOf(s))
}

func submissionOf(s kfp.Submission) Submission {
	return Submission{
		Namespace: s.Namespace, DisplayName: s.DisplayName, Description: s.Description, Experiment: s.Experiment,
		Filename: s.Filename, Package: s.Package, Parameters: s.Parameters, PipelineRoot: s.PipelineRoot,
		Arguments: s.Arguments, ServiceAccount: s.ServiceAccount, PipelineVersion: s.PipelineVersion,
	}
}
