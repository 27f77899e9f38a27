// Package artifact is the artifact repository in the file system: published
// URIs, one tree per namespace, zero copies by bind mount.
//
//	ROOT                    0700: nobody else on the host gets in
//	└── NAMESPACE
//	    ├── minio           seen as /minio in a container, minio://
//	    │   └── mlpipeline  the bucket
//	    │       └── …/RUN/TASK/ATTEMPT   0777 until the task commits
//	    ├── s3              /s3, s3://
//	    ├── gcs             /gcs, gs://
//	    └── https/HASH      copies of what has an http or https address
//
// A namespace's first three folders are what its pods see, read-only, and of
// https those that a pod's own inputs are in; the attempt's own folder is mounted over that, writable. What a task has committed
// has no write bits.
//
// All below an attempt's folder was made by a user's code and is hostile:
// nothing here follows a link on the way to an artifact, opens anything but
// regular files and directories, blocks on a FIFO, or acts on a path that was
// not opened beneath the root. Links inside an artifact must end inside it.
//
// The package imports the standard library, golang.org/x/sys and of skiff
// api/address alone; what artifacts mean is engine/pipeline's.
package artifact
