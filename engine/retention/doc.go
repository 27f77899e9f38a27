// Package retention gives the contents of artifacts up when a namespace has more
// of them, or older ones, than it is to keep; and those of artifacts that were
// deleted with their run.
//
// It goes through a namespace's artifacts in the order of their last use, the
// longest ago first, and so touches what goes and what is kept in spite of it, and
// nothing else, however many there are. What is pinned, or of a pinned or active
// run, is passed over.
//
//	mark    the artifact says in the store that its contents are gone: from here
//	        on nobody takes it for one whose contents can be had
//	look    does an active run refer to it all the same? then the mark is taken back
//	begin   where no artifact that is kept has the contents too: from here on
//	        there is no way back, for they may be there by half
//	remove  the contents, here and what skiff uploaded to a bucket
//	note    that nothing is left; an artifact that was deleted goes altogether
//
// What cannot be removed, as where a bucket is away, says so (Purge.Stuck) and is
// tried again with each look; it holds up nothing else.
//
// A daemon that is killed anywhere in between leaves the mark, by which the next
// one goes on. The artifact stays as it was otherwise, for the sake of lineage.
//
// What an engine holds that is not in the store yet is asked of it
// (Config.Using); all else is known from objects. The package imports api, store
// and store/artifact.
package retention
