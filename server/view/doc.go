// Package view is what people and scripts see of skiff: one document for a
// run, one for the node, and the short forms of durations and sizes. The server
// builds them from objects, the command line reads them.
//
// It imports api and store and must not import the rest of server.
package view
