// Package bundle is the format in which pipelines and runs travel from one
// skiff to another: a tar archive, gzipped or not, whose first entry lists all
// others.
//
//	skiff-bundle.json           the Manifest
//	objects/pipelines/NAME.jsonl  a pipeline and its versions, one object a line
//	objects/runs/ID.jsonl         a run, its manifest, tasks and artifacts
//	artifacts/ID                  the contents of an artifact that is a file
//	artifacts/ID/PATH             a file of an artifact that is a folder
//	images/N.tar                  a container image, as "docker save" writes it
//
// The archive holds regular files alone, in the manifest's order; folders and
// links of artifacts stand in the manifest. So a reader knows beforehand what
// must come next, and takes nothing else: whatever was added, left out, doubled,
// renamed or changed is found at the entry it concerns.
//
// A reader holds one entry's buffer and the manifest in memory, a writer the
// same. What to make of the entries is engine/portable's; the package knows no
// object and writes no file.
package bundle
