package lexicon

// Names of the collections that Tidings writes.
const (
	NSIDLayer   = "io.atcr.hold.layer"
	NSIDStats   = "io.atcr.hold.stats"
	NSIDPost    = "app.bsky.feed.post"
	NSIDProfile = "app.bsky.actor.profile"

	NSIDPublication = "site.standard.publication"
	NSIDDocument    = "site.standard.document"

	NSIDContentVisibility = "app.bsky.actor.contentVisibilityDeclaration"
)

// Names of methods that a hold with a notifier serves.
const (
	NSIDGetQuota       = "io.atcr.hold.getQuota"
	NSIDExportUserData = "io.atcr.hold.exportUserData"
	NSIDDeleteUserData = "io.atcr.hold.deleteUserData"
)

// Names of the procedures whose inputs are checked here.
const (
	NSIDNotifyManifest = "io.atcr.hold.notifyManifest"
	NSIDApplyWrites    = "com.atproto.repo.applyWrites"
)
