// Package s3 keeps artifacts in object stores that speak S3: Amazon's, MinIO and
// its like, Google's by its S3-compatible API.
//
//	Settings   the published config map kfp-launcher: which bucket is where
//	Client     one object store: whole artifacts up and down, checked, resumed
//	Mirror     a repository of the file system that also keeps artifacts there
//
// A Mirror is the repository with two more verbs. Deliver brings what a step made
// to its bucket; Fetch brings what a step needs into the repository's tree, where
// containers see it. The tree is thus the local cache, too: what was just made is
// there already, and what the bucket has as well may leave it when room is short.
// A namespace without a config map has nothing elsewhere, and nothing is copied.
//
// An artifact that is a file is one object under its own key; a folder is one
// object for each file below key + "/", as upstream's launcher lays it out. Each
// object carries the SHA-256 of its contents in its metadata.
//
// Credentials come from the namespace's secrets at the moment of use. They are
// in no error and no log.
package s3
