// Package kfp speaks the REST API of Kubeflow Pipelines, v2beta1, over skiff's
// own objects: the kfp SDK, its command line and the generated clients work
// against it unmodified. The paths, messages and rules are published in
// kubeflow/pipelines, backend/api/v2beta1 (protobuf, JSON by grpc-gateway).
//
// There is no state here: an experiment, a pipeline, a version, a run and a
// recurring run are objects in the store, and a request reads or changes them.
// What needs the engine (a run to be made or retried, a package to be checked)
// goes through Engine.
//
// It imports api, store and the server's other rooms; never an engine.
package kfp
