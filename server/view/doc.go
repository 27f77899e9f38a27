// Package view is what people and scripts see of skiff: one document for a
// run, one for the node, runs set side by side and picked by what they hold, and
// the short forms of durations and sizes. The server builds the documents from
// objects, the command line reads them.
//
// It imports api and store and must not import the rest of server.
package view
