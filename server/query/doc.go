// Package query lists the store's objects by a filter and an order, page by
// page: what the API of Kubeflow Pipelines and the command line ask for beyond
// what an index alone gives.
//
// A list is planned (plan.go) among the parts of an index that its kind
// declares, Spans: the narrowest one that the filter names, or one that is in
// the order wanted. Then it is walked in that order (walk.go), or gathered and
// sorted (gather.go) where the span is small. What an index holds in its values
// decides without the object being read; every object that is given was held to
// the whole filter. How much one page looks through is bounded, so that a page
// may come short, or empty, and still have a token of the rest.
//
// Tokens name a place in an order, not a snapshot: they stay good when objects
// come and go.
//
// It imports api and store; how a filter, an order and a token look on the wire
// is its callers' business.
package query
