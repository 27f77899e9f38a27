// Package kfpapi holds the tests of the API of Kubeflow Pipelines over the wire:
// the server's routes, over a real store with the kinds and indexes of the
// engine, held to the published messages and to models that can be read. The
// engine itself is played here; test/e2e runs the published clients against a
// whole daemon. It has no code of its own.
package kfpapi
