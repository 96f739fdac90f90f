"""Looking at findings and deciding on them: in the FiftyOne App, or on a plain page.

`app` pushes a data set to FiftyOne and opens the App, whose buttons are in `plugin`; `actions` is what they do;
`contact_sheet` is the way without a database.
"""
