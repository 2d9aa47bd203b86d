package lexicon

// Names of the collections that Tidings writes.
const (
	NSIDLayer   = "io.atcr.hold.layer"
	NSIDStats   = "io.atcr.hold.stats"
	NSIDPost    = "app.bsky.feed.post"
	NSIDProfile = "app.bsky.actor.profile"

	NSIDContentVisibility = "app.bsky.actor.contentVisibilityDeclaration"
)

// Names of the procedures whose inputs are checked here.
const (
	NSIDNotifyManifest = "io.atcr.hold.notifyManifest"
	NSIDApplyWrites    = "com.atproto.repo.applyWrites"
)
