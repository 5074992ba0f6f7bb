"""The result of ``compare`` as one HTML page that loads nothing: ``page.report_page``.

page.py assembles the page, charts.py draws, texts.py aligns the backends' source files, markup.py
escapes. report.css and report.js are inserted into the page.
"""
